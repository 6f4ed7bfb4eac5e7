// Shared by the addon's files. One `struct addon` per JavaScript environment (main thread, each
// worker): nothing here is global but constant tables, so the addon may be loaded in any thread.
#pragma once
#define NAPI_VERSION 9
#include <node_api.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define MAX_SLOTS 512
#define MAX_RINGS 256
#define MAX_TOGETHER 256

// A mapping that JavaScript sees as an ArrayBuffer and rows name by number. It lives until both the
// slot is released and the ArrayBuffer is collected, so that neither can leave a dangling pointer.
struct memory {
  uint8_t *base;
  size_t bytes;
  int references;
};

// The words of a ring that this thread consumes: see loop.c.
struct ring_watch {
  int slot;
  uint32_t *producer, *consumer, *sleeping;
};

struct flusher;
struct uring;

// A read that goes on beside others. `result` gets bytes, `had` of which were there before, or -errno.
struct reading {
  int fd;
  struct iovec part;
  off_t offset;
  int32_t had;
  int32_t *result;
};

struct addon {
  struct memory *slots[MAX_SLOTS];
  struct ring_watch rings[MAX_RINGS];
  int ring_count;
  struct flusher *flusher;
  struct uring *uring;
  bool no_uring;
};

// A negative `wanted` lets arguments be missing: those are undefined.
// Each gives false with a JavaScript exception pending when the argument isn't what it must be.
bool arguments(napi_env env, napi_callback_info info, int wanted, napi_value *values, struct addon **addon);
bool to_int(napi_env env, napi_value value, int64_t least, int64_t most, const char *name, int64_t *out);
bool to_text(napi_env env, napi_value value, const char *name, char *out, size_t size, size_t *length);
bool to_bytes(napi_env env, napi_value value, const char *name, uint8_t **data, size_t *length);
bool to_words(napi_env env, napi_value value, const char *name, int32_t **data, size_t *length);

bool to_unsigned(napi_env env, napi_value value, const char *name, uint32_t **data, size_t *length);
napi_value from_int(napi_env env, int64_t value);
// Throws an Error with `code` (ENOENT, ...), `errno` and `syscall`, as Node's own do.
napi_value throw_errno(napi_env env, int error, const char *call, const char *object);
napi_value throw_type(napi_env env, const char *name, const char *wanted);
void define(napi_env env, napi_value exports, const char *name, napi_callback function);

struct memory *slot_of(struct addon *addon, int64_t slot);
void release_all_memory(napi_env env, struct addon *addon);
void stop_flusher(struct addon *addon);

// At most MAX_TOGETHER. False, with nothing done, where the kernel has no io_uring for us.
bool read_together(struct addon *addon, struct reading *readings, int count);
void release_uring(struct addon *addon);

uint32_t crc32c(uint32_t initial, const uint8_t *data, size_t length);
void crc32c_prepare(void);

void define_crc32c(napi_env env, napi_value exports);
void define_memory(napi_env env, napi_value exports);
void define_sockets(napi_env env, napi_value exports);
void define_messages(napi_env env, napi_value exports);
void define_loop(napi_env env, napi_value exports);
void define_rows(napi_env env, napi_value exports);
void define_flush(napi_env env, napi_value exports);
