// Load generator: keeps N commands outstanding on one iSCSI session for some seconds and says how
// many it did. cc -O2 -o load load.c -liscsi
//
//   load PORTAL IQN LUN randread|randwrite|read|write|fill BLOCK-BYTES DEPTH SECONDS REGION-BYTES
//
// `fill` writes the region once, in order. Prints {"ios":N,"seconds":S,"errors":N} and each
// latency percentile in microseconds.
#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_DEPTH 256
#define BUCKETS 4096

enum mode { RANDREAD, RANDWRITE, READ, WRITE, FILL };
static const char *names[] = {"randread", "randwrite", "read", "write", "fill"};

struct request {
  struct run *run;
  uint8_t *buffer;
  struct scsi_iovec part;
  int64_t started_ns;
};

struct run {
  struct iscsi_context *iscsi;
  int lun, outstanding;
  enum mode mode;
  uint32_t block_bytes;
  uint64_t blocks, next, ios, errors, random;
  int64_t end_ns;
  uint32_t latency[BUCKETS];  // microseconds; the last holds all longer ones
};

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static uint64_t next_random(struct run *run) {
  run->random ^= run->random << 13;
  run->random ^= run->random >> 7;
  run->random ^= run->random << 17;
  return run->random;
}

static void submit(struct request *request);

static void completed(struct iscsi_context *iscsi, int status, void *command, void *data) {
  struct request *request = data;
  struct run *run = request->run;
  int64_t now = now_ns();
  int64_t micros = (now - request->started_ns) / 1000;
  run->latency[micros < BUCKETS ? micros : BUCKETS - 1]++;
  run->outstanding--;
  run->ios++;
  if (status != SCSI_STATUS_GOOD && run->errors++ == 0) fprintf(stderr, "load: %s\n", iscsi_get_error(iscsi));
  scsi_free_scsi_task(command);
  if (run->errors > 100) return;
  if (run->mode == FILL ? run->next < run->blocks : now < run->end_ns) submit(request);
}

static void submit(struct request *request) {
  struct run *run = request->run;
  uint64_t block = run->mode == RANDREAD || run->mode == RANDWRITE ? next_random(run) % run->blocks
                                                                    : run->next++ % run->blocks;
  uint64_t lba = block * (run->block_bytes / 512);
  request->started_ns = now_ns();
  struct scsi_task *task;
  if (run->mode == RANDREAD || run->mode == READ) {
    task = iscsi_read16_iov_task(run->iscsi, run->lun, lba, run->block_bytes, 512, 0, 0, 0, 0, 0, completed, request,
                                 &request->part, 1);
  } else {
    memcpy(request->buffer, &block, sizeof block);
    task = iscsi_write16_iov_task(run->iscsi, run->lun, lba, NULL, run->block_bytes, 512, 0, 0, 0, 0, 0, completed,
                                  request, &request->part, 1);
  }
  if (task == NULL) {
    fprintf(stderr, "load: %s\n", iscsi_get_error(run->iscsi));
    exit(1);
  }
  run->outstanding++;
}

static uint64_t percentile(const struct run *run, double part) {
  uint64_t wanted = (uint64_t)((double)run->ios * part), seen = 0;
  for (int i = 0; i < BUCKETS; i++) {
    seen += run->latency[i];
    if (seen >= wanted) return (uint64_t)i;
  }
  return BUCKETS - 1;
}

static uint64_t number(const char *text, uint64_t least, uint64_t most) {
  char *end;
  errno = 0;
  uint64_t value = strtoull(text, &end, 10);
  if (errno != 0 || *end != 0 || value < least || value > most) {
    fprintf(stderr, "load: %s is not a number from %llu to %llu\n", text, (unsigned long long)least,
            (unsigned long long)most);
    exit(2);
  }
  return value;
}

int main(int count, char **arguments) {
  if (count != 9) {
    fprintf(stderr, "usage: load PORTAL IQN LUN MODE BLOCK-BYTES DEPTH SECONDS REGION-BYTES\n");
    return 2;
  }
  static struct run run;
  int mode = 0;
  while (mode <= FILL && strcmp(names[mode], arguments[4]) != 0) mode++;
  if (mode > FILL) {
    fprintf(stderr, "load: no mode %s\n", arguments[4]);
    return 2;
  }
  run.mode = (enum mode)mode;
  run.lun = (int)number(arguments[3], 0, 255);
  run.block_bytes = (uint32_t)number(arguments[5], 512, 1 << 20);
  int depth = (int)number(arguments[6], 1, MAX_DEPTH);
  uint64_t seconds = number(arguments[7], 0, 3600);
  run.blocks = number(arguments[8], run.block_bytes, UINT64_MAX) / run.block_bytes;
  run.random = 0x9e3779b97f4a7c15u;
  run.iscsi = iscsi_create_context("iqn.2026-11.org.keelson.qa:load");
  if (run.iscsi == NULL) return 1;
  iscsi_set_noautoreconnect(run.iscsi, 1);
  iscsi_set_targetname(run.iscsi, arguments[2]);
  iscsi_set_session_type(run.iscsi, ISCSI_SESSION_NORMAL);
  iscsi_set_header_digest(run.iscsi, ISCSI_HEADER_DIGEST_NONE);
  if (iscsi_full_connect_sync(run.iscsi, arguments[1], run.lun) != 0) {
    fprintf(stderr, "load: %s\n", iscsi_get_error(run.iscsi));
    return 1;
  }
  static struct request requests[MAX_DEPTH];
  int64_t start = now_ns();
  run.end_ns = start + (int64_t)seconds * 1000000000;
  for (int i = 0; i < depth; i++) {
    uint8_t *buffer = aligned_alloc(4096, (run.block_bytes + 4095) / 4096 * 4096);
    if (buffer == NULL) return 1;
    for (uint32_t byte = 0; byte < run.block_bytes; byte++) buffer[byte] = (uint8_t)(byte * 31 + (uint32_t)i);
    requests[i] = (struct request){
        .run = &run, .buffer = buffer, .part = {.iov_base = buffer, .iov_len = run.block_bytes}};
    if (run.mode != FILL || run.next < run.blocks) submit(&requests[i]);
  }
  while (run.outstanding > 0) {
    struct pollfd wait = {.fd = iscsi_get_fd(run.iscsi), .events = (short)iscsi_which_events(run.iscsi)};
    if (poll(&wait, 1, 30000) <= 0 || iscsi_service(run.iscsi, wait.revents) < 0) {
      fprintf(stderr, "load: connection lost: %s\n", iscsi_get_error(run.iscsi));
      return 1;
    }
  }
  double elapsed = (double)(now_ns() - start) / 1e9;
  printf("{\"ios\":%llu,\"seconds\":%.6f,\"errors\":%llu,\"p50Us\":%llu,\"p99Us\":%llu}\n",
         (unsigned long long)run.ios, elapsed, (unsigned long long)run.errors,
         (unsigned long long)percentile(&run, 0.5), (unsigned long long)percentile(&run, 0.99));
  iscsi_logout_sync(run.iscsi);
  iscsi_destroy_context(run.iscsi);
  return run.errors == 0 ? 0 : 1;
}
