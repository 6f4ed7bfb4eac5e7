// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78; RFC 7143 section 13.1) by the processor's
// own instruction where it has one: SSE4.2, checked at run time, or ARMv8's CRC extension. Where it
// multiplies without carries 512 bits at a time, whole blocks are folded by that: half the time.
#include "addon.h"
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define POLYNOMIAL 0x82f63b78u
// Three streams run at once, since the instruction takes three cycles but starts one each cycle.
// 3 * 1360 + 16 = 4096: one turn a block.
#define STREAM 1360
#define BLOCK 4096

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

#if defined(__x86_64__)
// Folding (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ", 2009): what
// stands D bits further on is worth x^D more, modulo the polynomial. A multiplier for distance D is
// x^(D+31) for the earlier half of 128 bits and x^(D-33) for the later one, both reflected.
#define FOLDING __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.2")))
#define FOLDED 256

static bool folding;

FOLDING static inline __m512i fold(__m512i early, __m512i distance, __m512i late) {
  __m512i low = _mm512_clmulepi64_epi128(early, distance, 0x00);
  __m512i high = _mm512_clmulepi64_epi128(early, distance, 0x11);
  return _mm512_ternarylogic_epi64(low, high, late, 0x96);
}

FOLDING static uint32_t by_folding(uint32_t crc, const uint8_t *data, size_t length) {
  if (length < FOLDED) return by_instruction(crc, data, length);
  const __m512i by_2048 = _mm512_broadcast_i32x4(_mm_set_epi64x(0xb9e02b86, 0xdcb17aa4));
  const __m512i by_1536 = _mm512_broadcast_i32x4(_mm_set_epi64x(0xab7aff2a, 0xa87ab8a8));
  const __m512i by_1024 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0d3b6092, 0x6992cea2));
  const __m512i by_512 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x9e4addf8, 0x740eef02));
  // Of the four lanes: 384, 256, 128 bits, and the last one, which stays.
  const __m512i to_last = _mm512_set_epi64(0, 0, 0x493c7d27, 0xf20c0dfe, 0xba4fc28e, 0x3da6d0cb, 0xddc0152b, 0x1c291d04);
  __m512i a = _mm512_loadu_si512(data), b = _mm512_loadu_si512(data + 64);
  __m512i c = _mm512_loadu_si512(data + 128), d = _mm512_loadu_si512(data + 192);
  a = _mm512_xor_si512(a, _mm512_inserti32x4(_mm512_setzero_si512(), _mm_cvtsi32_si128((int)crc), 0));
  for (data += FOLDED, length -= FOLDED; length >= FOLDED; data += FOLDED, length -= FOLDED) {
    a = fold(a, by_2048, _mm512_loadu_si512(data));
    b = fold(b, by_2048, _mm512_loadu_si512(data + 64));
    c = fold(c, by_2048, _mm512_loadu_si512(data + 128));
    d = fold(d, by_2048, _mm512_loadu_si512(data + 192));
  }
  const __m512i none = _mm512_setzero_si512();
  d = _mm512_xor_si512(fold(a, by_1536, fold(b, by_1024, none)), fold(c, by_512, d));
  __m512i lanes = fold(d, to_last, none);
  __m128i lane = _mm_xor_si128(_mm512_extracti32x4_epi32(d, 3), _mm512_extracti32x4_epi32(lanes, 0));
  lane = _mm_xor_si128(lane, _mm512_extracti32x4_epi32(lanes, 1));
  lane = _mm_xor_si128(lane, _mm512_extracti32x4_epi32(lanes, 2));
  crc = STEP8(0, (uint64_t)_mm_cvtsi128_si64(lane));
  crc = STEP8(crc, (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(lane, lane)));
  return by_instruction(crc, data, length);
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
  folding = hardware && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq") &&
            __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
  hardware = (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
}

void crc32c_prepare(void) { pthread_once(&once, prepare); }

uint32_t crc32c(uint32_t initial, const uint8_t *data, size_t length) {
#if defined(__x86_64__)
  if (folding) return ~by_folding(~initial, data, length);
#endif
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

// crc32cBlocks(bytes, offsets: Int32Array, sums: Uint32Array, count): of 4096 bytes at each offset.
static napi_value js_crc32c_blocks(napi_env env, napi_callback_info info) {
  napi_value values[4];
  uint8_t *data;
  int32_t *offsets;
  uint32_t *sums;
  size_t length, offset_count, sum_count;
  int64_t count;
  if (!arguments(env, info, 4, values, NULL) || !to_bytes(env, values[0], "bytes", &data, &length) ||
      !to_words(env, values[1], "offsets", &offsets, &offset_count) ||
      !to_unsigned(env, values[2], "sums", &sums, &sum_count) ||
      !to_int(env, values[3], 0, (int64_t)(offset_count < sum_count ? offset_count : sum_count), "count", &count)) {
    return NULL;
  }
  for (int64_t i = 0; i < count; i++) {
    if (offsets[i] < 0 || length < BLOCK || (size_t)offsets[i] > length - BLOCK) {
      return throw_type(env, "offsets", "where a block begins");
    }
    sums[i] = crc32c(0, data + offsets[i], BLOCK);
  }
  return NULL;
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
  define(env, exports, "crc32cBlocks", js_crc32c_blocks);
  define(env, exports, "crc32cTable", js_crc32c_table);
}
