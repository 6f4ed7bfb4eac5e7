// Messages over unix sockets: sd_notify(3), and file descriptors passed along (unix(7), SCM_RIGHTS).
#include "addon.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_PASSED 8

// notify(state) -> true when it was sent. A NOTIFY_SOCKET that starts with @ is an abstract socket.
static napi_value js_notify(napi_env env, napi_callback_info info) {
  napi_value values[1], result;
  char state[4096];
  size_t length;
  if (!arguments(env, info, 1, values, NULL) || !to_text(env, values[0], "state", state, sizeof state, &length)) {
    return NULL;
  }
  bool sent = false;
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  if (path != NULL && (path[0] == '/' || path[0] == '@') && strlen(path) < sizeof name.sun_path) {
    size_t path_length = strlen(path);
    memcpy(name.sun_path, path, path_length);
    if (path[0] == '@') name.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
      socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_length);
      sent = sendto(fd, state, length, MSG_NOSIGNAL, (struct sockaddr *)&name, size) == (ssize_t)length;
      close(fd);
    }
  }
  return napi_get_boolean(env, sent, &result) == napi_ok ? result : NULL;
}

// sendMessage(fd, bytes, fds: Int32Array) -> bytes sent, or -errno.
static napi_value send_message(napi_env env, napi_callback_info info) {
  napi_value values[3];
  int64_t fd;
  uint8_t *data;
  int32_t *fds;
  size_t length, count;
  if (!arguments(env, info, 3, values, NULL) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd) ||
      !to_bytes(env, values[1], "bytes", &data, &length) || !to_words(env, values[2], "fds", &fds, &count)) {
    return NULL;
  }
  if (count > MAX_PASSED) return throw_type(env, "fds", "at most 8 descriptors");
  union {
    char bytes[CMSG_SPACE(sizeof(int) * MAX_PASSED)];
    struct cmsghdr align;
  } control = {0};
  struct iovec part = {.iov_base = data, .iov_len = length};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
  }
  ssize_t sent = sendmsg((int)fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  return from_int(env, sent < 0 ? -errno : sent);
}

// receiveMessage(fd, bytes, fds: Int32Array) -> bytes received (0: the peer ended), or -errno.
// Received descriptors go to the front of `fds`, the rest of it becomes -1; those that find no room
// are closed: a peer can't fill our table.
static napi_value receive_message(napi_env env, napi_callback_info info) {
  napi_value values[3];
  int64_t fd;
  uint8_t *data;
  int32_t *fds;
  size_t length, count;
  if (!arguments(env, info, 3, values, NULL) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd) ||
      !to_bytes(env, values[1], "bytes", &data, &length) || !to_words(env, values[2], "fds", &fds, &count)) {
    return NULL;
  }
  union {
    char bytes[CMSG_SPACE(sizeof(int) * MAX_PASSED)];
    struct cmsghdr align;
  } control;
  struct iovec part = {.iov_base = data, .iov_len = length};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  for (size_t i = 0; i < count; i++) fds[i] = -1;
  ssize_t received = recvmsg((int)fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received < 0) return from_int(env, -errno);
  size_t kept = 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t passed = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < passed; i++) {
      int one;
      memcpy(&one, CMSG_DATA(header) + i * sizeof one, sizeof one);
      if (kept < count) fds[kept++] = one;
      else close(one);
    }
  }
  return from_int(env, received);
}

void define_messages(napi_env env, napi_value exports) {
  define(env, exports, "notify", js_notify);
  define(env, exports, "sendMessage", send_message);
  define(env, exports, "receiveMessage", receive_message);
}
