// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78; RFC 7143 section 13.1) by the processor's
// own instruction where it has one: SSE4.2, checked at run time, or ARMv8's CRC extension.
#include "addon.h"
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define POLYNOMIAL 0x82f63b78u
// Three streams run at once, since the instruction takes three cycles but starts one each cycle.
// 3 * 1360 + 16 = 4096: one turn a block.
#define STREAM 1360

static uint32_t bytes_table[8][256];
// What a register becomes after STREAM more zero bytes, one table for each of its four bytes.
static uint32_t shift_table[4][256];
static bool hardware;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint32_t by_table(uint32_t crc, const uint8_t *data, size_t length) {
  while (length >= 8) {
    uint32_t low, high;
    memcpy(&low, data, 4);
    memcpy(&high, data + 4, 4);
    low ^= crc;
    crc = bytes_table[7][low & 255] ^ bytes_table[6][low >> 8 & 255] ^ bytes_table[5][low >> 16 & 255] ^
          bytes_table[4][low >> 24] ^ bytes_table[3][high & 255] ^ bytes_table[2][high >> 8 & 255] ^
          bytes_table[1][high >> 16 & 255] ^ bytes_table[0][high >> 24];
    data += 8;
    length -= 8;
  }
  while (length-- > 0) crc = crc >> 8 ^ bytes_table[0][(crc ^ *data++) & 255];
  return crc;
}

static uint32_t shift(uint32_t crc) {
  return shift_table[0][crc & 255] ^ shift_table[1][crc >> 8 & 255] ^ shift_table[2][crc >> 16 & 255] ^
         shift_table[3][crc >> 24];
}

#if defined(__x86_64__)
#define HARDWARE __attribute__((target("sse4.2")))
#define STEP8(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#define STEP1(crc, byte) _mm_crc32_u8((crc), (byte))
#elif defined(__aarch64__)
#define HARDWARE __attribute__((target("+crc")))
#define STEP8(crc, word) __crc32cd((crc), (word))
#define STEP1(crc, byte) __crc32cb((crc), (byte))
#endif

#ifdef HARDWARE
HARDWARE static uint32_t by_instruction(uint32_t crc, const uint8_t *data, size_t length) {
  while (length >= 3 * STREAM) {
    uint32_t second = 0, third = 0;
    for (size_t i = 0; i < STREAM; i += 8) {
      uint64_t a, b, c;
      memcpy(&a, data + i, 8);
      memcpy(&b, data + STREAM + i, 8);
      memcpy(&c, data + 2 * STREAM + i, 8);
      crc = STEP8(crc, a);
      second = STEP8(second, b);
      third = STEP8(third, c);
    }
    crc = shift(shift(crc) ^ second) ^ third;
    data += 3 * STREAM;
    length -= 3 * STREAM;
  }
  while (length >= 8) {
    uint64_t word;
    memcpy(&word, data, 8);
    crc = STEP8(crc, word);
    data += 8;
    length -= 8;
  }
  while (length-- > 0) crc = STEP1(crc, *data++);
  return crc;
}
#endif

static void prepare(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
    bytes_table[0][i] = crc;
  }
  for (int table = 1; table < 8; table++) {
    for (int i = 0; i < 256; i++) {
      uint32_t crc = bytes_table[table - 1][i];
      bytes_table[table][i] = crc >> 8 ^ bytes_table[0][crc & 255];
    }
  }
  static const uint8_t zeros[STREAM];
  for (int table = 0; table < 4; table++) {
    for (uint32_t i = 0; i < 256; i++) shift_table[table][i] = by_table(i << 8 * table, zeros, STREAM);
  }
#if defined(__x86_64__)
  hardware = __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__)
  hardware = (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
}

void crc32c_prepare(void) { pthread_once(&once, prepare); }

uint32_t crc32c(uint32_t initial, const uint8_t *data, size_t length) {
#ifdef HARDWARE
  if (hardware) return ~by_instruction(~initial, data, length);
#endif
  return ~by_table(~initial, data, length);
}

static napi_value js_crc32c(napi_env env, napi_callback_info info) {
  napi_value values[2];
  uint8_t *data;
  size_t length;
  int64_t initial;
  if (!arguments(env, info, 2, values, NULL) || !to_bytes(env, values[0], "bytes", &data, &length) ||
      !to_int(env, values[1], 0, UINT32_MAX, "initial", &initial)) {
    return NULL;
  }
  return from_int(env, crc32c((uint32_t)initial, data, length));
}

// The table's result whatever the processor has: for tests.
static napi_value js_crc32c_table(napi_env env, napi_callback_info info) {
  napi_value values[2];
  uint8_t *data;
  size_t length;
  int64_t initial;
  if (!arguments(env, info, 2, values, NULL) || !to_bytes(env, values[0], "bytes", &data, &length) ||
      !to_int(env, values[1], 0, UINT32_MAX, "initial", &initial)) {
    return NULL;
  }
  return from_int(env, (uint32_t)~by_table(~(uint32_t)initial, data, length));
}

void define_crc32c(napi_env env, napi_value exports) {
  define(env, exports, "crc32c", js_crc32c);
  define(env, exports, "crc32cTable", js_crc32c_table);
}
