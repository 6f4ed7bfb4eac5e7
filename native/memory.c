// Memory that rows name by slot number and JavaScript sees as an ArrayBuffer.
//
// Memory to be shared is a memfd sealed against resizing: a peer that truncates it could otherwise
// kill us with SIGBUS. What a peer passes us is mapped only with that seal on it.
#include "addon.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BYTES ((int64_t)1 << 31)

struct memory *slot_of(struct addon *addon, int64_t slot) {
  return slot < 0 || slot >= MAX_SLOTS ? NULL : addon->slots[slot];
}

static void drop(struct memory *memory) {
  if (--memory->references > 0) return;
  munmap(memory->base, memory->bytes);
  free(memory);
}

static void collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)data;
  drop(hint);
}

void release_all_memory(napi_env env, struct addon *addon) {
  (void)env;
  for (int i = 0; i < MAX_SLOTS; i++) {
    if (addon->slots[i] != NULL) drop(addon->slots[i]);
    addon->slots[i] = NULL;
  }
}

// {slot, buffer, fd}; takes over `fd` (-1: none to report), closes it on failure.
static napi_value give(napi_env env, struct addon *addon, void *base, size_t bytes, int fd) {
  int slot = 0;
  while (slot < MAX_SLOTS && addon->slots[slot] != NULL) slot++;
  struct memory *memory = slot < MAX_SLOTS ? malloc(sizeof *memory) : NULL;
  if (memory == NULL) {
    munmap(base, bytes);
    if (fd >= 0) close(fd);
    return throw_errno(env, slot < MAX_SLOTS ? ENOMEM : EMFILE, "memory", NULL);
  }
  *memory = (struct memory){.base = base, .bytes = bytes, .references = 2};
  napi_value buffer, result;
  if (napi_create_external_arraybuffer(env, base, bytes, collected, memory, &buffer) != napi_ok) {
    memory->references = 1;
    drop(memory);
    if (fd >= 0) close(fd);
    napi_throw_error(env, NULL, "this runtime has no external ArrayBuffers");
    return NULL;
  }
  addon->slots[slot] = memory;
  if (napi_create_object(env, &result) != napi_ok) return NULL;
  napi_set_named_property(env, result, "slot", from_int(env, slot));
  napi_set_named_property(env, result, "buffer", buffer);
  napi_set_named_property(env, result, "fd", from_int(env, fd));
  return result;
}

// memoryCreate(bytes, shared) -> {slot, buffer, fd}; fd is -1 unless shared.
static napi_value memory_create(napi_env env, napi_callback_info info) {
  napi_value values[2];
  struct addon *addon;
  int64_t bytes;
  bool shared;
  if (!arguments(env, info, 2, values, &addon) || !to_int(env, values[0], 1, MAX_BYTES, "bytes", &bytes)) return NULL;
  if (napi_get_value_bool(env, values[1], &shared) != napi_ok) return throw_type(env, "shared", "a boolean");
  int fd = -1;
  if (shared) {
    fd = memfd_create("keelson", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return throw_errno(env, errno, "memfd_create", NULL);
    if (ftruncate(fd, bytes) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
      int error = errno;
      close(fd);
      return throw_errno(env, error, "memfd", NULL);
    }
  }
  void *base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                    fd, 0);
  if (base == MAP_FAILED) {
    int error = errno;
    if (fd >= 0) close(fd);
    return throw_errno(env, error, "mmap", NULL);
  }
  return give(env, addon, base, (size_t)bytes, fd);
}

// memoryMap(fd, bytes) -> {slot, buffer, fd: -1}; the caller keeps `fd` and may close it.
static napi_value memory_map(napi_env env, napi_callback_info info) {
  napi_value values[2];
  struct addon *addon;
  int64_t fd, bytes;
  struct stat status;
  if (!arguments(env, info, 2, values, &addon) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd) ||
      !to_int(env, values[1], 1, MAX_BYTES, "bytes", &bytes)) {
    return NULL;
  }
  int seals = fcntl((int)fd, F_GET_SEALS);
  if (seals < 0) return throw_errno(env, errno, "fcntl F_GET_SEALS", NULL);
  if (fstat((int)fd, &status) != 0) return throw_errno(env, errno, "fstat", NULL);
  if ((seals & F_SEAL_SHRINK) == 0 || status.st_size < bytes) {
    return throw_type(env, "fd", "memory of that size, sealed against shrinking");
  }
  void *base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, (int)fd, 0);
  if (base == MAP_FAILED) return throw_errno(env, errno, "mmap", NULL);
  return give(env, addon, base, (size_t)bytes, -1);
}

// memoryRelease(slot): rows can no longer name it; a ring watch on it ends.
static napi_value memory_release(napi_env env, napi_callback_info info) {
  napi_value values[1];
  struct addon *addon;
  int64_t slot;
  if (!arguments(env, info, 1, values, &addon) || !to_int(env, values[0], 0, MAX_SLOTS - 1, "slot", &slot)) {
    return NULL;
  }
  if (addon->slots[slot] == NULL) return throw_type(env, "slot", "one in use");
  for (int i = 0; i < addon->ring_count;) {
    if (addon->rings[i].slot == slot) addon->rings[i] = addon->rings[--addon->ring_count];
    else i++;
  }
  drop(addon->slots[slot]);
  addon->slots[slot] = NULL;
  return NULL;
}

void define_memory(napi_env env, napi_value exports) {
  define(env, exports, "memoryCreate", memory_create);
  define(env, exports, "memoryMap", memory_map);
  define(env, exports, "memoryRelease", memory_release);
}
