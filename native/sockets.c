// Sockets that Node cannot make, or that a thread without Node's event loop needs. All are
// non-blocking and closed on exec.
#include "addon.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int set_option(int fd, int level, int option) {
  int on = 1;
  return setsockopt(fd, level, option, &on, sizeof on);
}

static napi_value close_and_throw(napi_env env, int fd, const char *call, const char *object) {
  int error = errno;
  close(fd);
  return throw_errno(env, error, call, object);
}

// "" or "0.0.0.0" is any IPv4 address; a colon makes it IPv6. False with an exception pending.
static bool to_address(napi_env env, const char *text, int64_t port, struct sockaddr_storage *out, socklen_t *size) {
  memset(out, 0, sizeof *out);
  if (strchr(text, ':') != NULL) {
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((uint16_t)port);
    *size = sizeof *six;
    if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) return true;
  } else {
    struct sockaddr_in *four = (struct sockaddr_in *)out;
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
    *size = sizeof *four;
    if (text[0] == 0 || inet_pton(AF_INET, text, &four->sin_addr) == 1) return true;
  }
  throw_type(env, "address", "an IPv4 or IPv6 address");
  return false;
}

// udpSocket(interface, address, port, broadcast, reuse) -> fd; interface "" binds to none.
static napi_value udp_socket(napi_env env, napi_callback_info info) {
  napi_value values[5];
  char interface[IFNAMSIZ], address[INET6_ADDRSTRLEN];
  int64_t port;
  bool broadcast, reuse;
  struct sockaddr_storage name;
  socklen_t size;
  if (!arguments(env, info, 5, values, NULL) ||
      !to_text(env, values[0], "interface", interface, sizeof interface, NULL) ||
      !to_text(env, values[1], "address", address, sizeof address, NULL) ||
      !to_int(env, values[2], 0, 65535, "port", &port)) {
    return NULL;
  }
  if (napi_get_value_bool(env, values[3], &broadcast) != napi_ok) return throw_type(env, "broadcast", "a boolean");
  if (napi_get_value_bool(env, values[4], &reuse) != napi_ok) return throw_type(env, "reuse", "a boolean");
  if (!to_address(env, address, port, &name, &size)) return NULL;
  int fd = socket(name.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", NULL);
  if (reuse && set_option(fd, SOL_SOCKET, SO_REUSEADDR) != 0) {
    return close_and_throw(env, fd, "setsockopt SO_REUSEADDR", NULL);
  }
  if (broadcast && set_option(fd, SOL_SOCKET, SO_BROADCAST) != 0) {
    return close_and_throw(env, fd, "setsockopt SO_BROADCAST", NULL);
  }
  if (interface[0] != 0 &&
      setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strlen(interface)) != 0) {
    return close_and_throw(env, fd, "setsockopt SO_BINDTODEVICE", interface);
  }
  if (bind(fd, (struct sockaddr *)&name, size) != 0) return close_and_throw(env, fd, "bind", address);
  return from_int(env, fd);
}

// tcpListen(address, port, backlog) -> fd; port 0 takes a free one: see localAddress.
static napi_value tcp_listen(napi_env env, napi_callback_info info) {
  napi_value values[3];
  char address[INET6_ADDRSTRLEN];
  int64_t port, backlog;
  struct sockaddr_storage name;
  socklen_t size;
  if (!arguments(env, info, 3, values, NULL) ||
      !to_text(env, values[0], "address", address, sizeof address, NULL) ||
      !to_int(env, values[1], 0, 65535, "port", &port) || !to_int(env, values[2], 1, 65535, "backlog", &backlog) ||
      !to_address(env, address, port, &name, &size)) {
    return NULL;
  }
  int fd = socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", NULL);
  if (set_option(fd, SOL_SOCKET, SO_REUSEADDR) != 0) return close_and_throw(env, fd, "setsockopt", NULL);
  if (bind(fd, (struct sockaddr *)&name, size) != 0) return close_and_throw(env, fd, "bind", address);
  if (listen(fd, (int)backlog) != 0) return close_and_throw(env, fd, "listen", address);
  return from_int(env, fd);
}

static bool to_unix(napi_env env, napi_value value, struct sockaddr_un *out) {
  memset(out, 0, sizeof *out);
  out->sun_family = AF_UNIX;
  return to_text(env, value, "path", out->sun_path, sizeof out->sun_path, NULL);
}

// unixListen(path, mode) -> fd. The path must not exist: the caller has removed a stale one.
static napi_value unix_listen(napi_env env, napi_callback_info info) {
  napi_value values[2];
  struct sockaddr_un name;
  int64_t mode;
  if (!arguments(env, info, 2, values, NULL) || !to_unix(env, values[0], &name) ||
      !to_int(env, values[1], 0, 0777, "mode", &mode)) {
    return NULL;
  }
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", NULL);
  if (bind(fd, (struct sockaddr *)&name, sizeof name) != 0) return close_and_throw(env, fd, "bind", name.sun_path);
  if (chmod(name.sun_path, (mode_t)mode) != 0) return close_and_throw(env, fd, "chmod", name.sun_path);
  if (listen(fd, 64) != 0) return close_and_throw(env, fd, "listen", name.sun_path);
  return from_int(env, fd);
}

// unixConnect(path) -> fd. Connecting to a unix socket never waits for the peer to accept.
static napi_value unix_connect(napi_env env, napi_callback_info info) {
  napi_value values[1];
  struct sockaddr_un name;
  if (!arguments(env, info, 1, values, NULL) || !to_unix(env, values[0], &name)) return NULL;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", NULL);
  if (connect(fd, (struct sockaddr *)&name, sizeof name) != 0) {
    return close_and_throw(env, fd, "connect", name.sun_path);
  }
  return from_int(env, fd);
}

// accept(fd) -> fd, or -errno (-EAGAIN: nobody waits). TCP connections get TCP_NODELAY.
static napi_value js_accept(napi_env env, napi_callback_info info) {
  napi_value values[1];
  int64_t fd;
  if (!arguments(env, info, 1, values, NULL) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd)) return NULL;
  int peer = accept4((int)fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (peer < 0) return from_int(env, -errno);
  set_option(peer, IPPROTO_TCP, TCP_NODELAY);  // fails on a unix socket, harmlessly
  return from_int(env, peer);
}

static napi_value address_text(napi_env env, napi_callback_info info, bool of_peer) {
  napi_value values[1], result;
  int64_t fd;
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  char host[INET6_ADDRSTRLEN] = "", text[INET6_ADDRSTRLEN + 16];
  if (!arguments(env, info, 1, values, NULL) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd)) return NULL;
  int error = of_peer ? getpeername((int)fd, (struct sockaddr *)&name, &size)
                      : getsockname((int)fd, (struct sockaddr *)&name, &size);
  if (error != 0) return throw_errno(env, errno, of_peer ? "getpeername" : "getsockname", NULL);
  if (name.ss_family == AF_INET6) {
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&name;
    inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
    snprintf(text, sizeof text, "[%s]:%u", host, ntohs(six->sin6_port));
  } else if (name.ss_family == AF_INET) {
    struct sockaddr_in *four = (struct sockaddr_in *)&name;
    inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
    snprintf(text, sizeof text, "%s:%u", host, ntohs(four->sin_port));
  } else {
    snprintf(text, sizeof text, "unix");
  }
  return napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &result) == napi_ok ? result : NULL;
}

static napi_value peer_address(napi_env env, napi_callback_info info) {
  return address_text(env, info, true);
}

static napi_value local_address(napi_env env, napi_callback_info info) {
  return address_text(env, info, false);
}

static napi_value js_close(napi_env env, napi_callback_info info) {
  napi_value values[1];
  int64_t fd;
  if (!arguments(env, info, 1, values, NULL) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd)) return NULL;
  if (close((int)fd) != 0 && errno != EINTR) return throw_errno(env, errno, "close", NULL);
  return NULL;
}

static napi_value event_create(napi_env env, napi_callback_info info) {
  (void)info;
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd < 0 ? throw_errno(env, errno, "eventfd", NULL) : from_int(env, fd);
}

// eventSignal(fd): wakes who waits for it. eventDrain(fd): takes all signals. Both give 0 or -errno.
static napi_value event_signal(napi_env env, napi_callback_info info) {
  napi_value values[1];
  int64_t fd;
  uint64_t one = 1;
  if (!arguments(env, info, 1, values, NULL) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd)) return NULL;
  return from_int(env, write((int)fd, &one, sizeof one) < 0 ? -errno : 0);
}

static napi_value event_drain(napi_env env, napi_callback_info info) {
  napi_value values[1];
  int64_t fd;
  uint64_t count;
  if (!arguments(env, info, 1, values, NULL) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd)) return NULL;
  return from_int(env, read((int)fd, &count, sizeof count) < 0 ? -errno : 0);
}

void define_sockets(napi_env env, napi_value exports) {
  define(env, exports, "udpSocket", udp_socket);
  define(env, exports, "tcpListen", tcp_listen);
  define(env, exports, "unixListen", unix_listen);
  define(env, exports, "unixConnect", unix_connect);
  define(env, exports, "accept", js_accept);
  define(env, exports, "peerAddress", peer_address);
  define(env, exports, "localAddress", local_address);
  define(env, exports, "close", js_close);
  define(env, exports, "eventCreate", event_create);
  define(env, exports, "eventSignal", event_signal);
  define(env, exports, "eventDrain", event_drain);
}
