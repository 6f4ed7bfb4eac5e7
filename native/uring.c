// Reads that go on at the same time, by io_uring(7): one ring for each thread, made at the first
// use. A batch is submitted in parts of PART, so that the device works on the first while the rest
// is prepared; the last call waits for all of it.
#include "addon.h"
#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PART = 8 };

struct uring {
  int fd;
  uint32_t *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
  struct io_uring_sqe *sqes;
  struct io_uring_cqe *cqes;
  uint8_t *rings;
  size_t rings_bytes, sqes_bytes;
};

static int setup(struct io_uring_params *params) {
  // The second try is for kernels before 6.1.
  const uint32_t wanted[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0};
  int fd = -1;
  for (int i = 0; i < 2 && fd < 0; i++) {
    memset(params, 0, sizeof *params);
    params->flags = wanted[i];
    fd = (int)syscall(SYS_io_uring_setup, MAX_TOGETHER, params);
  }
  return fd;
}

static void release(struct uring *ring) {
  if (ring->rings != MAP_FAILED) munmap(ring->rings, ring->rings_bytes);
  if (ring->sqes != MAP_FAILED) munmap(ring->sqes, ring->sqes_bytes);
  close(ring->fd);
  free(ring);
}

static struct uring *create(void) {
  struct io_uring_params params;
  int fd = setup(&params);
  if (fd < 0) return NULL;
  struct uring *ring = calloc(1, sizeof *ring);
  if (ring == NULL || (params.features & IORING_FEAT_SINGLE_MMAP) == 0) {
    free(ring);
    close(fd);
    return NULL;
  }
  size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
  size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  ring->fd = fd;
  ring->rings_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
  ring->sqes_bytes = params.sq_entries * sizeof(struct io_uring_sqe);
  int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
  ring->rings = mmap(NULL, ring->rings_bytes, protection, flags, fd, IORING_OFF_SQ_RING);
  ring->sqes = mmap(NULL, ring->sqes_bytes, protection, flags, fd, IORING_OFF_SQES);
  if (ring->rings == MAP_FAILED || ring->sqes == MAP_FAILED) {
    release(ring);
    return NULL;
  }
  ring->sq_tail = (uint32_t *)(ring->rings + params.sq_off.tail);
  ring->sq_mask = (uint32_t *)(ring->rings + params.sq_off.ring_mask);
  ring->sq_array = (uint32_t *)(ring->rings + params.sq_off.array);
  ring->cq_head = (uint32_t *)(ring->rings + params.cq_off.head);
  ring->cq_tail = (uint32_t *)(ring->rings + params.cq_off.tail);
  ring->cq_mask = (uint32_t *)(ring->rings + params.cq_off.ring_mask);
  ring->cqes = (struct io_uring_cqe *)(ring->rings + params.cq_off.cqes);
  return ring;
}

static void prepare(struct uring *ring, const struct reading *reading, int number) {
  uint32_t tail = *ring->sq_tail, at = tail & *ring->sq_mask;
  struct io_uring_sqe *entry = &ring->sqes[at];
  memset(entry, 0, sizeof *entry);
  entry->opcode = IORING_OP_READ;
  entry->fd = reading->fd;
  entry->addr = (uint64_t)(uintptr_t)reading->part.iov_base;
  entry->len = (uint32_t)reading->part.iov_len;
  entry->off = (uint64_t)reading->offset;
  entry->user_data = (uint64_t)number;
  ring->sq_array[at] = at;
  __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
}

static int enter(struct uring *ring, int submit, int wait) {
  unsigned flags = wait > 0 ? IORING_ENTER_GETEVENTS : 0;
  return (int)syscall(SYS_io_uring_enter, ring->fd, submit, wait, flags, NULL, 0);
}

static int reap(struct uring *ring, struct reading *readings) {
  uint32_t head = *ring->cq_head, tail = __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE);
  int reaped = 0;
  for (; head != tail; head++, reaped++) {
    const struct io_uring_cqe *done = &ring->cqes[head & *ring->cq_mask];
    struct reading *reading = &readings[done->user_data];
    *reading->result = done->res < 0 ? done->res : reading->had + done->res;
  }
  __atomic_store_n(ring->cq_head, head, __ATOMIC_RELEASE);
  return reaped;
}

void release_uring(struct addon *addon) {
  if (addon->uring != NULL) release(addon->uring);
  addon->uring = NULL;
}

bool read_together(struct addon *addon, struct reading *readings, int count) {
  if (addon->uring == NULL && !addon->no_uring) {
    addon->uring = create();
    // Not asked again: it is turned off here (sysctl, seccomp), or there is no memory for it.
    addon->no_uring = addon->uring == NULL;
  }
  struct uring *ring = addon->uring;
  if (ring == NULL) return false;
  int submitted = 0, reaped = 0;
  for (int i = 0; i < count; i++) {
    prepare(ring, &readings[i], i);
    if (i + 1 < submitted + PART || i + 1 == count) continue;
    // What the kernel doesn't take now goes with the next call.
    int entered = enter(ring, i + 1 - submitted, 0);
    if (entered > 0) submitted += entered;
  }
  // Memory of the readings is the kernel's until each is done: nothing ends this loop before.
  while (reaped < count) {
    int entered = enter(ring, count - submitted, count - reaped);
    if (entered > 0) submitted += entered;
    else if (entered < 0 && submitted == 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) {
      // It was taken from us meanwhile; the kernel has none of these.
      release_uring(addon);
      addon->no_uring = true;
      return false;
    }
    reaped += reap(ring, readings);
  }
  return true;
}
