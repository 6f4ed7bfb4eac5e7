// Flushes on a thread of their own, so that the loop goes on meanwhile. Completion comes through an
// eventfd that the loop watches. The thread also has the kernel begin to write what a later flush
// would wait for, and to read what a later read would; nobody hears of that, and an error of it is
// the later flush's or read's.
#include "addon.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAX_QUEUED 64
// Of them for reading ahead: a flush finds room.
#define MAX_HINTS 32
// Instead of a flush's token.
#define BEGIN -1
#define READ_AHEAD -2

struct flush {
  int fd;
  int32_t token, error;
  // Of READ_AHEAD.
  off_t position, bytes;
};

struct flusher {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  int event;
  bool stopping;
  struct flush queued[MAX_QUEUED], finished[MAX_QUEUED];
  int queued_count, finished_count, running;
};

static void *work(void *context) {
  struct flusher *flusher = context;
  pthread_mutex_lock(&flusher->lock);
  for (;;) {
    while (flusher->queued_count == 0 && !flusher->stopping) pthread_cond_wait(&flusher->wake, &flusher->lock);
    if (flusher->queued_count == 0) break;
    struct flush flush = flusher->queued[0];
    flusher->queued_count--;
    memmove(flusher->queued, flusher->queued + 1, sizeof flush * (size_t)flusher->queued_count);
    flusher->running = 1;
    pthread_mutex_unlock(&flusher->lock);
    if (flush.token < 0) {
      if (flush.token == BEGIN) sync_file_range(flush.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
      else posix_fadvise(flush.fd, flush.position, flush.bytes, POSIX_FADV_WILLNEED);
      pthread_mutex_lock(&flusher->lock);
      flusher->running = 0;
      continue;
    }
    // Never repeated on failure: the kernel may have dropped the pages, and a second call would lie.
    flush.error = fdatasync(flush.fd) == 0 ? 0 : errno;
    pthread_mutex_lock(&flusher->lock);
    flusher->running = 0;
    flusher->finished[flusher->finished_count++] = flush;
    uint64_t one = 1;
    if (write(flusher->event, &one, sizeof one) < 0) continue;  // full: it is readable all the same
  }
  pthread_mutex_unlock(&flusher->lock);
  return NULL;
}

void stop_flusher(struct addon *addon) {
  struct flusher *flusher = addon->flusher;
  if (flusher == NULL) return;
  pthread_mutex_lock(&flusher->lock);
  flusher->stopping = true;
  pthread_cond_signal(&flusher->wake);
  pthread_mutex_unlock(&flusher->lock);
  pthread_join(flusher->thread, NULL);
  close(flusher->event);
  pthread_mutex_destroy(&flusher->lock);
  pthread_cond_destroy(&flusher->wake);
  free(flusher);
  addon->flusher = NULL;
}

// flushStart() -> eventfd, readable when a flush has finished. Starts the thread on the first call.
static napi_value flush_start(napi_env env, napi_callback_info info) {
  struct addon *addon;
  if (!arguments(env, info, 0, NULL, &addon)) return NULL;
  if (addon->flusher == NULL) {
    struct flusher *flusher = calloc(1, sizeof *flusher);
    if (flusher == NULL) return throw_errno(env, ENOMEM, "flushStart", NULL);
    flusher->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (flusher->event < 0) {
      int error = errno;
      free(flusher);
      return throw_errno(env, error, "eventfd", NULL);
    }
    pthread_mutex_init(&flusher->lock, NULL);
    pthread_cond_init(&flusher->wake, NULL);
    int error = pthread_create(&flusher->thread, NULL, work, flusher);
    if (error != 0) {
      close(flusher->event);
      free(flusher);
      return throw_errno(env, error, "pthread_create", NULL);
    }
    addon->flusher = flusher;
  }
  return from_int(env, addon->flusher->event);
}

// flushSubmit(fd, token) -> false when too many are under way.
static napi_value flush_submit(napi_env env, napi_callback_info info) {
  napi_value values[2], result;
  struct addon *addon;
  int64_t fd, token;
  if (!arguments(env, info, 2, values, &addon) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd) ||
      !to_int(env, values[1], 0, INT32_MAX, "token", &token)) {
    return NULL;
  }
  struct flusher *flusher = addon->flusher;
  if (flusher == NULL) return throw_errno(env, EBADF, "flushSubmit before flushStart", NULL);
  pthread_mutex_lock(&flusher->lock);
  bool room = flusher->queued_count + flusher->running + flusher->finished_count < MAX_QUEUED;
  if (room) {
    flusher->queued[flusher->queued_count++] = (struct flush){.fd = (int)fd, .token = (int32_t)token};
    pthread_cond_signal(&flusher->wake);
  }
  pthread_mutex_unlock(&flusher->lock);
  return napi_get_boolean(env, room, &result) == napi_ok ? result : NULL;
}

// flushBegin(fd): writing begins now, of all that a flush would wait for. A hint.
static napi_value flush_begin(napi_env env, napi_callback_info info) {
  napi_value values[1];
  struct addon *addon;
  int64_t fd;
  if (!arguments(env, info, 1, values, &addon) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd)) return NULL;
  struct flusher *flusher = addon->flusher;
  if (flusher == NULL) return throw_errno(env, EBADF, "flushBegin before flushStart", NULL);
  pthread_mutex_lock(&flusher->lock);
  // Behind a flush it would come too late, and one is enough.
  if (flusher->queued_count == 0) {
    flusher->queued[flusher->queued_count++] = (struct flush){.fd = (int)fd, .token = BEGIN};
    pthread_cond_signal(&flusher->wake);
  }
  pthread_mutex_unlock(&flusher->lock);
  return NULL;
}

// readAhead(fd, position, bytes): is being read into the page cache from now on. A hint: with much
// under way already it is left.
static napi_value read_ahead(napi_env env, napi_callback_info info) {
  napi_value values[3];
  struct addon *addon;
  int64_t fd, position, bytes;
  if (!arguments(env, info, 3, values, &addon) || !to_int(env, values[0], 0, INT32_MAX, "fd", &fd) ||
      !to_int(env, values[1], 0, 1LL << 53, "position", &position) ||
      !to_int(env, values[2], 0, INT32_MAX, "bytes", &bytes)) {
    return NULL;
  }
  struct flusher *flusher = addon->flusher;
  if (flusher == NULL) return throw_errno(env, EBADF, "readAhead before flushStart", NULL);
  pthread_mutex_lock(&flusher->lock);
  if (flusher->queued_count < MAX_HINTS) {
    flusher->queued[flusher->queued_count++] =
        (struct flush){.fd = (int)fd, .token = READ_AHEAD, .position = position, .bytes = bytes};
    pthread_cond_signal(&flusher->wake);
  }
  pthread_mutex_unlock(&flusher->lock);
  return NULL;
}

// flushReap(out: Int32Array) -> number of (token, 0 or errno) pairs; clears the eventfd.
static napi_value flush_reap(napi_env env, napi_callback_info info) {
  napi_value values[1];
  struct addon *addon;
  int32_t *out;
  size_t words;
  if (!arguments(env, info, 1, values, &addon) || !to_words(env, values[0], "out", &out, &words)) return NULL;
  struct flusher *flusher = addon->flusher;
  if (flusher == NULL) return from_int(env, 0);
  if (words < 2 * MAX_QUEUED) return throw_type(env, "out", "an Int32Array of at least 128");
  uint64_t signals;
  pthread_mutex_lock(&flusher->lock);
  if (read(flusher->event, &signals, sizeof signals) < 0) signals = 0;
  int count = flusher->finished_count;
  for (int i = 0; i < count; i++) {
    out[2 * i] = flusher->finished[i].token;
    out[2 * i + 1] = flusher->finished[i].error;
  }
  flusher->finished_count = 0;
  pthread_mutex_unlock(&flusher->lock);
  return from_int(env, count);
}

void define_flush(napi_env env, napi_value exports) {
  define(env, exports, "flushStart", flush_start);
  define(env, exports, "flushSubmit", flush_submit);
  define(env, exports, "flushBegin", flush_begin);
  define(env, exports, "readAhead", read_ahead);
  define(env, exports, "flushReap", flush_reap);
}
