// A file system with one file, store.img, on a disk with a volatile write cache.
//
//   cutfs [--swallow-flushes] DURABLE MOUNTPOINT
//
// DURABLE is what the disk holds. Reads see every write at once (from memory); a write reaches
// DURABLE only by a later fsync, or by chance at a power cut. The file `control` takes commands:
//
//   cut SEED KEEP    the power goes: each unflushed 512-byte sector of each write, in order, is kept
//                    with a probability of KEEP percent; then reads see what the disk holds
//
// --swallow-flushes: fsync says yes and does nothing. A store on it must be caught losing data.
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 512 };

struct write {
  struct write *next;
  off_t offset;
  size_t size;
  unsigned char data[];
};

static int durable = -1;
static unsigned char *live;
static off_t size;
static struct write *first, **last = &first;
static int swallow;
static unsigned long writes, flushes, kept, lost;
static char answer[160] = "ready\n";

static const char *const file_name = "/store.img", *const control_name = "/control";

static int is_file(const char *path) { return strcmp(path, file_name) == 0; }
static int is_control(const char *path) { return strcmp(path, control_name) == 0; }

static int get_attributes(const char *path, struct stat *stat, struct fuse_file_info *info) {
  (void)info;
  memset(stat, 0, sizeof *stat);
  stat->st_uid = getuid();
  stat->st_gid = getgid();
  if (strcmp(path, "/") == 0) {
    stat->st_mode = S_IFDIR | 0700;
    stat->st_nlink = 2;
  } else if (is_file(path) || is_control(path)) {
    stat->st_mode = S_IFREG | 0600;
    stat->st_nlink = 1;
    stat->st_size = is_file(path) ? size : (off_t)sizeof answer;
  } else {
    return -ENOENT;
  }
  return 0;
}

static int read_directory(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                          struct fuse_file_info *info, enum fuse_readdir_flags flags) {
  (void)path, (void)offset, (void)info, (void)flags;
  fill(buffer, "store.img", NULL, 0, 0);
  fill(buffer, "control", NULL, 0, 0);
  return 0;
}

static int open_file(const char *path, struct fuse_file_info *info) {
  if (!is_file(path) && !is_control(path)) return -ENOENT;
  // No page cache above us: every read and write of the store comes here.
  info->direct_io = 1;
  return 0;
}

static int read_file(const char *path, char *buffer, size_t length, off_t offset, struct fuse_file_info *info) {
  (void)info;
  if (is_control(path)) {
    size_t have = strlen(answer);
    if ((size_t)offset >= have) return 0;
    if (length > have - (size_t)offset) length = have - (size_t)offset;
    memcpy(buffer, answer + offset, length);
    return (int)length;
  }
  if (offset >= size) return 0;
  if ((off_t)length > size - offset) length = (size_t)(size - offset);
  memcpy(buffer, live + offset, length);
  return (int)length;
}

static uint64_t state;

// xorshift64*: the same cut for the same seed.
static uint32_t chance(void) {
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return (uint32_t)((state * 2685821657736338717ull) >> 33) % 100;
}

static int put(const unsigned char *data, size_t length, off_t offset) {
  return pwrite(durable, data, length, offset) == (ssize_t)length ? 0 : -EIO;
}

static int apply_all(uint32_t percent) {
  for (struct write *write = first, *next; write != NULL; write = next) {
    for (size_t at = 0; at < write->size; at += SECTOR) {
      size_t length = write->size - at < SECTOR ? write->size - at : SECTOR;
      if (chance() >= percent) {
        lost++;
        continue;
      }
      kept++;
      if (put(write->data + at, length, write->offset + (off_t)at) != 0) return -EIO;
    }
    next = write->next;
    free(write);
    first = next;
  }
  last = &first;
  return 0;
}

static int command(const char *text, size_t length) {
  char line[80];
  unsigned long seed, percent;
  if (length >= sizeof line) return -EINVAL;
  memcpy(line, text, length);
  line[length] = 0;
  if (sscanf(line, "cut %lu %lu", &seed, &percent) != 2 || percent > 100) return -EINVAL;
  state = seed * 0x9e3779b97f4a7c15ull + 1;
  kept = lost = 0;
  if (apply_all((uint32_t)percent) != 0) return -EIO;
  if (pread(durable, live, (size_t)size, 0) != size) return -EIO;
  snprintf(answer, sizeof answer, "writes %lu flushes %lu kept %lu lost %lu\n", writes, flushes, kept, lost);
  return (int)length;
}

static int write_file(const char *path, const char *data, size_t length, off_t offset, struct fuse_file_info *info) {
  (void)info;
  if (is_control(path)) return command(data, length);
  if (offset >= size) return -ENOSPC;
  if ((off_t)length > size - offset) length = (size_t)(size - offset);
  struct write *write = malloc(sizeof *write + length);
  if (write == NULL) return -ENOMEM;
  write->next = NULL;
  write->offset = offset;
  write->size = length;
  memcpy(write->data, data, length);
  memcpy(live + offset, data, length);
  *last = write;
  last = &write->next;
  writes++;
  return (int)length;
}

static int sync_file(const char *path, int data_only, struct fuse_file_info *info) {
  (void)path, (void)data_only, (void)info;
  flushes++;
  if (swallow) return 0;
  for (struct write *write = first, *next; write != NULL; write = next) {
    if (put(write->data, write->size, write->offset) != 0) return -EIO;
    next = write->next;
    free(write);
    first = next;
  }
  last = &first;
  return 0;
}

static int truncate_file(const char *path, off_t length, struct fuse_file_info *info) {
  (void)length, (void)info;
  return is_control(path) ? 0 : -EPERM;
}

static const struct fuse_operations operations = {
    .getattr = get_attributes,
    .readdir = read_directory,
    .open = open_file,
    .read = read_file,
    .write = write_file,
    .fsync = sync_file,
    .truncate = truncate_file,
};

int main(int count, char **arguments) {
  int at = 1;
  if (at < count && strcmp(arguments[at], "--swallow-flushes") == 0) swallow = 1, at++;
  if (count - at != 2) {
    fprintf(stderr, "usage: cutfs [--swallow-flushes] DURABLE MOUNTPOINT\n");
    return 2;
  }
  durable = open(arguments[at], O_RDWR);
  struct stat stat;
  if (durable < 0 || fstat(durable, &stat) != 0) {
    perror(arguments[at]);
    return 1;
  }
  size = stat.st_size;
  live = malloc((size_t)size);
  // Linux reads at most 2 GiB at once.
  for (off_t have = 0, got; have < size; have += got) {
    got = live == NULL ? -1 : pread(durable, live + have, (size_t)(size - have), have);
    if (got <= 0) {
      perror("read");
      return 1;
    }
  }
  // One thread, in the foreground: writes have an order.
  char *fuse_arguments[] = {arguments[0], "-s", "-f", arguments[at + 1], NULL};
  return fuse_main(4, fuse_arguments, &operations, NULL);
}
