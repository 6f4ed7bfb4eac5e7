// Rows: a batch of system calls described by an Int32Array, done in order in one crossing from
// JavaScript. A row is eight words:
//
//   0  operation | flags    1  fd       2  slot       3  offset in the slot
//   4  length in bytes      5  file offset, low 32 bits       6  high 32 bits
//   7  out: bytes done, or -errno
//
// MORE joins a row with the next one into one vectored call: fd and file offset are the first
// row's, and so is the result. A bad row gets -EINVAL and the rest still runs. Reads with TOGETHER
// that follow each other are done at the same time (with NOWAIT: those that have to wait at all).
#include "addon.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <fcntl.h>
#include <linux/falloc.h>

#define ROW 8
#define MAX_PARTS 256

enum { READ = 1, WRITE = 2, RECEIVE = 3, SEND = 4, PUNCH = 6, ZERO = 7, FORGET = 8 };
enum { MORE = 0x100, NOWAIT = 0x200, TOGETHER = 0x400 };

struct extra {
  uint8_t *base;
  size_t bytes;
};

static bool part_of(struct addon *addon, const struct extra *extra, const int32_t *row, struct iovec *part) {
  struct memory *memory = slot_of(addon, row[2]);
  uint8_t *base = memory != NULL ? memory->base : row[2] == -1 ? extra->base : NULL;
  size_t bytes = memory != NULL ? memory->bytes : row[2] == -1 ? extra->bytes : 0;
  uint32_t offset = (uint32_t)row[3], length = (uint32_t)row[4];
  if (length > bytes || offset > bytes - length) return false;
  *part = (struct iovec){.iov_base = base + offset, .iov_len = length};
  return true;
}

static ssize_t transfer(int operation, int flags, int fd, struct iovec *parts, int count, off_t offset) {
  switch (operation) {
    case READ:
      return (flags & NOWAIT) != 0 ? preadv2(fd, parts, count, offset, RWF_NOWAIT)
             : count == 1          ? pread(fd, parts->iov_base, parts->iov_len, offset)
                                   : preadv(fd, parts, count, offset);
    case WRITE:
      return count == 1 ? pwrite(fd, parts->iov_base, parts->iov_len, offset) : pwritev(fd, parts, count, offset);
    case RECEIVE:
      if (count == 1) return recv(fd, parts->iov_base, parts->iov_len, MSG_DONTWAIT);
      struct msghdr in = {.msg_iov = parts, .msg_iovlen = (size_t)count};
      return recvmsg(fd, &in, MSG_DONTWAIT);
    case SEND:
      if (count == 1) return send(fd, parts->iov_base, parts->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
      struct msghdr out = {.msg_iov = parts, .msg_iovlen = (size_t)count};
      return sendmsg(fd, &out, MSG_DONTWAIT | MSG_NOSIGNAL);
    default:
      errno = EINVAL;
      return -1;
  }
}

// Does what waits; one after the other if it is one, or where they can't go together.
static void finish(struct addon *addon, struct reading *readings, int *count) {
  if (*count > 1 && read_together(addon, readings, *count)) *count = 0;
  for (int i = 0; i < *count; i++) {
    struct reading *each = &readings[i];
    ssize_t done;
    do done = pread(each->fd, each->part.iov_base, each->part.iov_len, each->offset);
    while (done < 0 && errno == EINTR);
    *each->result = done < 0 ? -errno : each->had + (int32_t)done;
  }
  *count = 0;
}

// rowsRun(rows: Int32Array, count, extra?: Uint8Array): fills in each first row's result. Rows with
// slot -1 mean `extra`, memory that need not be the addon's: it is looked up anew in each call.
static napi_value rows_run(napi_env env, napi_callback_info info) {
  napi_value values[3];
  struct extra extra = {NULL, 0};
  napi_valuetype type;
  struct addon *addon;
  int32_t *rows;
  size_t words;
  int64_t count;
  if (!arguments(env, info, -3, values, &addon) || !to_words(env, values[0], "rows", &rows, &words) ||
      !to_int(env, values[1], 0, (int64_t)(words / ROW), "count", &count)) {
    return NULL;
  }
  if (napi_typeof(env, values[2], &type) != napi_ok) return NULL;
  if (type != napi_undefined && !to_bytes(env, values[2], "extra", &extra.base, &extra.bytes)) return NULL;
  struct iovec parts[MAX_PARTS];
  struct reading readings[MAX_TOGETHER];
  int waiting = 0;
  for (int64_t index = 0; index < count;) {
    int32_t *row = rows + index * ROW;
    int operation = row[0] & 0xff, flags = row[0];
    bool together = operation == READ && (flags & TOGETHER) != 0;
    if (!together || waiting == MAX_TOGETHER) finish(addon, readings, &waiting);
    off_t offset = (off_t)((uint64_t)(uint32_t)row[6] << 32 | (uint32_t)row[5]);
    if (operation == PUNCH || operation == ZERO) {
      int mode = FALLOC_FL_KEEP_SIZE | (operation == PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
      row[7] = fallocate(row[1], mode, offset, (off_t)(uint32_t)row[4]) == 0 ? 0 : -errno;
      index++;
      continue;
    }
    if (operation == FORGET) {
      row[7] = -posix_fadvise(row[1], offset, (off_t)(uint32_t)row[4], POSIX_FADV_DONTNEED);
      index++;
      continue;
    }
    int used = 0;
    bool good = true, more = true;
    for (; more && index < count; index++) {
      int32_t *part = rows + index * ROW;
      more = (part[0] & MORE) != 0;
      if (used == MAX_PARTS || !part_of(addon, &extra, part, &parts[used])) good = false;
      else used++;
    }
    if (!good) row[7] = -EINVAL;
    else {
      ssize_t done = -1;
      errno = EAGAIN;
      if (!together || used > 1 || (flags & NOWAIT) != 0) {
        do done = transfer(operation, flags, row[1], parts, used, offset);
        while (done < 0 && errno == EINTR);
      }
      row[7] = done < 0 ? -errno : (int32_t)done;
      // With NOWAIT the first part of it may have been in the page cache, and the rest not.
      int32_t had = row[7] > 0 ? row[7] : 0;
      bool rest = (flags & NOWAIT) != 0 && had > 0 && (size_t)had < parts[0].iov_len;
      if (together && used == 1 && (row[7] == -EAGAIN || rest)) {
        struct iovec part = {(uint8_t *)parts[0].iov_base + had, parts[0].iov_len - (size_t)had};
        readings[waiting++] = (struct reading){row[1], part, offset + had, had, &row[7]};
      }
    }
  }
  finish(addon, readings, &waiting);
  return NULL;
}

void define_rows(napi_env env, napi_value exports) { define(env, exports, "rowsRun", rows_run); }
