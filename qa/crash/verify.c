// Verified load: an initiator that writes blocks it can tell apart, survives the loss of its
// session, and knows at each moment what a block may hold. cc -O2 -o verify verify.c -liscsi
//
//   verify PORTAL IQN LUN BLOCKS DEPTH SEED
//
// A block of 4096 bytes holds its number, the count of its write, and a pattern made of both, so
// that old, foreign and torn content are all told from good. For each block:
//
//   acknowledged  count of the last write that the target said was done (or that a read returned)
//   submitted     count of the last write ever sent
//
// A read must return, whole, one count from acknowledged to submitted: less is lost, more was never
// written, mixed is torn. When the session is lost, half of the unanswered writes are sent again
// on the next one, the others stay open: the block may hold either. Never two at once on a block.
//
// Lines on stdout: "up MS" at each log-in, "acked N" ten times a second. SIGTERM: reads all blocks
// back, prints one JSON object, exits 0 if nothing was lost or torn.
#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define MAX_DEPTH 64
#define GIVE_UP_MS 60000

enum kind { IDLE, WRITING, READING, FLUSHING };

struct block {
  uint32_t acknowledged, submitted;
  bool busy;
};

struct slot {
  enum kind kind;
  uint64_t block;
  uint8_t *buffer;
  struct scsi_iovec part;
};

static struct {
  uint64_t writes, reads, flushes, lost, torn, foreign, invented, unanswered, logins, errors;
} counts;

static struct block *blocks;
static uint64_t block_count, random_state, sweep;
static struct slot slots[MAX_DEPTH];
static int depth, lun, outstanding;
static struct iscsi_context *iscsi;
static const char *portal, *target;
static bool down, sweeping;
static volatile sig_atomic_t ending;

static void end_soon(int number) {
  (void)number;
  ending = 1;
}

static int64_t now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static uint64_t next_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

// Every eighth byte-group depends on block, count and place: no mix of two versions looks like one.
static void fill(uint8_t *buffer, uint64_t block, uint64_t count) {
  uint64_t *words = (uint64_t *)buffer;
  uint64_t state = (block + 1) * 0x9e3779b97f4a7c15u ^ (count + 1) * 0xc2b2ae3d27d4eb4fu;
  for (int i = 2; i < BLOCK / 8; i++) {
    state ^= state >> 31;
    state *= 0xd6e8feb86659fd93u;
    words[i] = state + (uint64_t)i;
  }
  words[0] = block;
  words[1] = count;
}

static void check(struct slot *slot) {
  static uint8_t expected[BLOCK];
  static const uint8_t zeros[BLOCK];
  struct block *block = &blocks[slot->block];
  uint64_t number, count;
  memcpy(&number, slot->buffer, 8);
  memcpy(&count, slot->buffer + 8, 8);
  if (memcmp(slot->buffer, zeros, BLOCK) == 0) {
    if (block->acknowledged > 0) {
      counts.lost++;
      fprintf(stderr, "block %llu: empty, write %u was acknowledged\n", (unsigned long long)slot->block,
              block->acknowledged);
    }
    return;
  }
  fill(expected, number, count);
  if (memcmp(slot->buffer, expected, BLOCK) != 0) {
    counts.torn++;
    fprintf(stderr, "block %llu: torn\n", (unsigned long long)slot->block);
  } else if (number != slot->block) {
    counts.foreign++;
    fprintf(stderr, "block %llu: holds block %llu\n", (unsigned long long)slot->block, (unsigned long long)number);
  } else if (count < block->acknowledged) {
    counts.lost++;
    fprintf(stderr, "block %llu: holds write %llu, %u was acknowledged\n", (unsigned long long)slot->block,
            (unsigned long long)count, block->acknowledged);
  } else if (count > block->submitted) {
    counts.invented++;
    fprintf(stderr, "block %llu: holds write %llu, only %u were sent\n", (unsigned long long)slot->block,
            (unsigned long long)count, block->submitted);
  } else {
    // Seen once, it may not go back.
    block->acknowledged = (uint32_t)count;
  }
}

static void answered(struct iscsi_context *context, int status, void *command, void *data) {
  struct slot *slot = data;
  if (context != iscsi || down) return;  // of a session that is being torn down
  if (command != NULL) scsi_free_scsi_task(command);
  if (status != SCSI_STATUS_GOOD) {
    if (status == SCSI_STATUS_CHECK_CONDITION || status == SCSI_STATUS_BUSY) {
      counts.errors++;
      fprintf(stderr, "block %llu: status %d: %s\n", (unsigned long long)slot->block, status,
              iscsi_get_error(context));
    }
    down = true;
    return;
  }
  outstanding--;
  if (slot->kind == WRITING) {
    struct block *block = &blocks[slot->block];
    block->acknowledged = block->submitted;
    block->busy = false;
    counts.writes++;
  } else if (slot->kind == READING) {
    check(slot);
    blocks[slot->block].busy = false;
    counts.reads++;
  } else {
    counts.flushes++;
  }
  slot->kind = IDLE;
}

static bool send_slot(struct slot *slot) {
  struct scsi_task *task;
  uint64_t lba = slot->block * (BLOCK / 512);
  if (slot->kind == WRITING) {
    fill(slot->buffer, slot->block, blocks[slot->block].submitted);
    task = iscsi_write16_iov_task(iscsi, lun, lba, NULL, BLOCK, 512, 0, 0, 0, 0, 0, answered, slot, &slot->part, 1);
  } else if (slot->kind == READING) {
    task = iscsi_read16_iov_task(iscsi, lun, lba, BLOCK, 512, 0, 0, 0, 0, 0, answered, slot, &slot->part, 1);
  } else {
    task = iscsi_synchronizecache16_task(iscsi, lun, 0, 0, 0, 0, answered, slot);
  }
  if (task == NULL) {
    down = true;
    return false;
  }
  outstanding++;
  return true;
}

// Gives an idle slot its next work; false when there is none.
static bool choose(struct slot *slot) {
  if (sweeping) {
    if (sweep == block_count) return false;
    slot->block = sweep++;
    slot->kind = READING;
    return true;
  }
  uint64_t dice = next_random() % 512;
  if (dice == 0) {
    slot->kind = FLUSHING;
    slot->block = 0;
    return true;
  }
  do slot->block = next_random() % block_count;
  while (blocks[slot->block].busy);
  blocks[slot->block].busy = true;
  slot->kind = dice < 160 ? READING : WRITING;
  if (slot->kind == WRITING) blocks[slot->block].submitted++;
  return true;
}

static bool log_in(void) {
  iscsi = iscsi_create_context("iqn.2026-11.org.keelson.qa:verify");
  if (iscsi == NULL) return false;
  iscsi_set_isid_oui(iscsi, 0x4b4545, 1);  // the same session each time, as a real initiator's
  iscsi_set_noautoreconnect(iscsi, 1);
  iscsi_set_timeout(iscsi, 5);
  iscsi_set_targetname(iscsi, target);
  iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
  if (iscsi_full_connect_sync(iscsi, portal, lun) == 0) {
    iscsi_set_timeout(iscsi, 0);
    return true;
  }
  iscsi_destroy_context(iscsi);
  iscsi = NULL;
  return false;
}

static void come_back(void) {
  int64_t start = now_ms();
  if (iscsi != NULL) iscsi_destroy_context(iscsi);
  iscsi = NULL;
  while (!log_in()) {
    if (now_ms() - start > GIVE_UP_MS) {
      fprintf(stderr, "the session did not come back within %d s\n", GIVE_UP_MS / 1000);
      exit(3);
    }
    usleep(20000);
  }
  down = false;
  outstanding = 0;
  counts.logins++;
  printf("up %lld\n", (long long)(now_ms() - start));
  fflush(stdout);
  for (int i = 0; i < depth && !down; i++) {
    struct slot *slot = &slots[i];
    if (slot->kind == IDLE) continue;
    if (slot->kind == WRITING && next_random() % 2 == 0) {
      counts.unanswered++;
      blocks[slot->block].busy = false;
      slot->kind = IDLE;
    } else {
      send_slot(slot);
    }
  }
}

static bool work(void) {
  for (int i = 0; i < depth && !down; i++) {
    if (slots[i].kind == IDLE && choose(&slots[i])) send_slot(&slots[i]);
  }
  if (outstanding == 0 && !down) return false;
  if (!down) {
    struct pollfd wait = {.fd = iscsi_get_fd(iscsi), .events = (short)iscsi_which_events(iscsi)};
    int ready = poll(&wait, 1, 100);
    if (ready > 0 && iscsi_service(iscsi, wait.revents) < 0) down = true;
  }
  if (down) come_back();
  return true;
}

int main(int count, char **arguments) {
  if (count != 7) {
    fprintf(stderr, "usage: verify PORTAL IQN LUN BLOCKS DEPTH SEED\n");
    return 2;
  }
  portal = arguments[1];
  target = arguments[2];
  lun = atoi(arguments[3]);
  block_count = strtoull(arguments[4], NULL, 10);
  depth = atoi(arguments[5]);
  random_state = strtoull(arguments[6], NULL, 10) * 2 + 1;
  if (block_count < 2 * MAX_DEPTH || depth < 1 || depth > MAX_DEPTH) {
    fprintf(stderr, "verify: at least %d blocks, depth 1 to %d\n", 2 * MAX_DEPTH, MAX_DEPTH);
    return 2;
  }
  signal(SIGTERM, end_soon);
  signal(SIGPIPE, SIG_IGN);
  blocks = calloc(block_count, sizeof *blocks);
  for (int i = 0; i < depth; i++) {
    slots[i].buffer = aligned_alloc(BLOCK, BLOCK);
    if (blocks == NULL || slots[i].buffer == NULL) return 1;
    slots[i].part = (struct scsi_iovec){.iov_base = slots[i].buffer, .iov_len = BLOCK};
  }
  come_back();
  int64_t told = 0;
  while (!ending) {
    work();
    if (now_ms() - told >= 100) {
      told = now_ms();
      printf("acked %llu\n", (unsigned long long)counts.writes);
      fflush(stdout);
    }
  }
  // Let what is under way be answered, then read every block back.
  sweeping = true;
  sweep = block_count;
  while (work()) continue;
  sweep = 0;
  while (work()) continue;
  printf("{\"writes\":%llu,\"reads\":%llu,\"flushes\":%llu,\"logins\":%llu,\"unanswered\":%llu,\"errors\":%llu,"
         "\"lost\":%llu,\"torn\":%llu,\"foreign\":%llu,\"invented\":%llu}\n",
         (unsigned long long)counts.writes, (unsigned long long)counts.reads, (unsigned long long)counts.flushes,
         (unsigned long long)counts.logins, (unsigned long long)counts.unanswered,
         (unsigned long long)counts.errors, (unsigned long long)counts.lost, (unsigned long long)counts.torn,
         (unsigned long long)counts.foreign, (unsigned long long)counts.invented);
  bool good = counts.lost + counts.torn + counts.foreign + counts.invented + counts.errors == 0;
  return good ? 0 : 1;
}
