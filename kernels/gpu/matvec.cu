// y = x Wᵀ for 1 to 8 tokens, straight from codes: tensor cores take decoded weights from registers.
//
// A few warps share a tile of 16 outputs; each takes every so many units of inputs. Of a tile and unit, lane 4 g + q has
// the rows g and g + 8, and of each piece of 4 P inputs the P inputs from q P on, as the tensor cores want them. Weights
// lie in memory in that order, so a load is contiguous, and DEPTH of them are under way. The warps of a tile then add
// their sums in a fixed order.
//
// Set from outside: FORMAT (0 grid, 1 codebook, 2 lattice, 3 short points of the lattice), BITS of a code, DIM of a
// codeword, GROUPS of inputs with scales of their own in a unit, THREADS of the largest block, DEPTH, X_BF16, Y_TYPE (0
// half, 1 bfloat16, 2 float).

typedef unsigned int u32;
typedef unsigned short u16;

#if FORMAT == 0
#define WORDS BITS            // 32-bit words of a row and lane in a unit
#define PIECES 4
#define P 8
#elif FORMAT == 1
#define WORDS (8 * BITS / 32) // 8 codes
#define P (DIM == 6 ? 12 : 8)
#define PIECES (8 * DIM / P)
#elif FORMAT == 2
#define WORDS 2               // 4 codes of 16 bits
#define PIECES 4
#define P 8
#else
#define WORDS 1               // 4 codes of 8 bits
#define PIECES 4
#define P 8
#endif
#define UNIT (4 * PIECES * P) // inputs of a unit
#define LANES 32
#define QUADS ((UNIT / 4 + LANES - 1) / LANES)

__device__ __forceinline__ void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 half2_add(u32 a, u32 b) {
  u32 d;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

__device__ __forceinline__ u32 pack_half2(float low, float high) {
  u32 d;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}

__device__ __forceinline__ float half_to_float(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ __forceinline__ float2 unpack_x(u32 pair) {
#if X_BF16
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u));
#else
  return make_float2(half_to_float((u16)(pair & 0xFFFFu)), half_to_float((u16)(pair >> 16)));
#endif
}

// Four inputs of a token from `column` on, times their norms; zeros where there are none.
__device__ __forceinline__ float4 read_x(const u32* x, const float* r_in, int column, int inputs, int token) {
  float v[4];
#pragma unroll
  for (int k = 0; k < 4; k += 2) {
    const bool there = column + k < inputs;
    const int from = there ? column + k : 0;
    const float2 pair = unpack_x(x[((long long)token * inputs + from) >> 1]);
    const float2 norm = r_in ? *(const float2*)(r_in + from) : make_float2(1, 1);
    v[k] = there ? pair.x * norm.x : 0;
    v[k + 1] = there ? pair.y * norm.y : 0;
  }
  return make_float4(v[0], v[1], v[2], v[3]);
}

// All inputs as halves in shared memory [tokens, stride], multiplied by the power of two that brings the largest of a
// token's unit near 2^14, so that halves hold them as well as before; its inverse goes to `inverses` [tokens, units].
// For grids they are also divided by where a code has its bits, and their sums by group are needed [tokens, units, GROUPS].
__device__ __forceinline__ void load_x(u16* halves, float* inverses, float* x_sums, const u32* x, const float* r_in,
                                       int inputs, int tokens, int units, int stride) {
  const int lane = threadIdx.x % LANES, warps = blockDim.x / LANES;
  for (int at = threadIdx.x / LANES; at < tokens * units; at += warps) {
    const int token = at / units, unit = at - token * units;
    float4 v[QUADS];
    float largest = 0;
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
      const int place = 4 * (i * LANES + lane);
      v[i] = place < UNIT ? read_x(x, r_in, unit * UNIT + place, inputs, token) : make_float4(0, 0, 0, 0);
      largest = fmaxf(largest, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)), fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
    }
    const int exponent = max((int)(__reduce_max_sync(~0u, __float_as_uint(largest)) >> 23), 15);
    const float scale = __uint_as_float((u32)max(1, min(253, 268 - exponent)) << 23);
#if FORMAT == 0
    const float first = BITS == 4 || lane % 2 == 0 ? 1 : 0x1p-4f, second = first * (BITS == 4 ? 0x1p-4f : 0x1p-2f);
    if (lane == 0) inverses[at] = 0x1p24f / scale;
#else
    const float first = 1, second = 1;
    if (lane == 0) inverses[at] = 1 / scale;
#endif
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
      const int place = 4 * (i * LANES + lane);
      const float low = scale * first, high = scale * second;
      const uint2 pairs = make_uint2(pack_half2(v[i].x * low, v[i].y * low), pack_half2(v[i].z * high, v[i].w * high));
      if (place < UNIT) *(uint2*)(halves + token * stride + unit * UNIT + place) = pairs;
#if FORMAT == 0
      float sum = (half_to_float((u16)pairs.x) + half_to_float((u16)(pairs.x >> 16))) / first +
                  (half_to_float((u16)pairs.y) + half_to_float((u16)(pairs.y >> 16))) / second;
#pragma unroll
      for (int mask = LANES / GROUPS / 2; mask; mask >>= 1) sum += __shfl_xor_sync(~0u, sum, mask);
      if (lane % (LANES / GROUPS) == 0) x_sums[at * GROUPS + lane / (LANES / GROUPS)] = 0x1p-24f * sum;
#endif
    }
  }
}

#if FORMAT == 0
// (a & b) | c, of which the compiler makes two instructions where b and c are constants.
__device__ __forceinline__ u32 and_or(u32 a, u32 b, u32 c) {
  u32 d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// A code at the bits from i on of a half's mantissa is the subnormal code * 2^(i - 24), which the tensor cores take
// exactly: the inputs were divided by 2^i, and the sum is multiplied by 2^24.
__device__ __forceinline__ void decode(u32 (&h)[P / 2], const u32 (&w)[WORDS], int piece, const void*, int) {
#if BITS == 4
#pragma unroll
  for (int k = 0; k < 4; k++) h[k] = (w[piece] >> k / 2 * 8) & (k % 2 ? 0x00F000F0u : 0x000F000Fu);
#else
  const u32 v = w[piece / 2] >> 8 * (piece % 2);
#if BITS == 3
  const u32 above = piece == 0 ? w[2] << 2 : piece == 1 ? w[2] << 1 : piece == 2 ? w[2] >> 6 : w[2] >> 7;
#endif
#pragma unroll
  for (int k = 0; k < 4; k++) {
    h[k] = v & (0x00030003u << 2 * k);
#if BITS == 3
    h[k] = and_or(above, 0x00040004u << 2 * k, h[k]);
#endif
  }
#endif
}
#define TABLE_BYTES 0
__device__ __forceinline__ void fill(void*, const void*) {}

#elif FORMAT == 1
#define SIZE (1 << BITS)
#define COPIES (DIM == 4 && SIZE <= 256 ? 16 : 1)  // a copy for each pair of banks: lookups then never collide
#define TABLE_BYTES (SIZE * 2 * DIM * COPIES)

__device__ __forceinline__ void fill(void* table, const void* source) {
#if DIM == 6
  uint2* first = (uint2*)table;
  u32* last = (u32*)(first + SIZE);
  const u32* from = (const u32*)source;
  for (int i = threadIdx.x; i < SIZE; i += blockDim.x) {
    first[i] = make_uint2(from[3 * i], from[3 * i + 1]);
    last[i] = from[3 * i + 2];
  }
#elif DIM == 4
  for (int i = threadIdx.x; i < SIZE * COPIES; i += blockDim.x) ((uint2*)table)[i] = ((const uint2*)source)[i / COPIES];
#else
  for (int i = threadIdx.x; i < SIZE * DIM / 2; i += blockDim.x) ((u32*)table)[i] = ((const u32*)source)[i];
#endif
}

#define CODES (P / DIM)  // of a piece

__device__ __forceinline__ void decode(u32 (&h)[P / 2], const u32 (&w)[WORDS], int piece, const void* table, int lane) {
#pragma unroll
  for (int i = 0; i < CODES; i++) {
    const int bit = (piece * CODES + i) * BITS, word = bit / 32, shift = bit % 32;
    const u32 next = word + 1 < WORDS ? w[word + 1] : 0;
    const u32 code = (shift + BITS > 32 ? __funnelshift_r(w[word], next, shift) : w[word] >> shift) & (SIZE - 1);
#if DIM == 6
    const uint2 low = ((const uint2*)table)[code];
    h[3 * i] = low.x, h[3 * i + 1] = low.y;
    h[3 * i + 2] = ((const u32*)((const uint2*)table + SIZE))[code];
#elif DIM == 4
    const uint2 value = ((const uint2*)table)[code * COPIES + (lane & (COPIES - 1))];
    h[2 * i] = value.x, h[2 * i + 1] = value.y;
#elif DIM == 2
    h[i] = ((const u32*)table)[code];
#else
    const uint4 value = ((const uint4*)table)[code];
    h[0] = value.x, h[1] = value.y, h[2] = value.z, h[3] = value.w;
#endif
  }
}

#else
#define COPIES 8  // a copy for each quarter of the banks
#define TABLE_BYTES (256 * 16 * COPIES)

__device__ __forceinline__ void fill(void* table, const void* source) {
  for (int i = threadIdx.x; i < 256 * COPIES; i += blockDim.x) ((uint4*)table)[i] = ((const uint4*)source)[i / COPIES];
}

__device__ __forceinline__ void decode(u32 (&h)[P / 2], const u32 (&w)[WORDS], int piece, const void* table, int lane) {
  const uint4* mine = (const uint4*)table + (lane & (COPIES - 1));
#if FORMAT == 3
  const uint4 p = mine[((w[0] >> 8 * piece) & 0xFFu) * COPIES];
  h[0] = p.x, h[1] = p.y, h[2] = p.z, h[3] = p.w;
#else
  // Two codes a word. Patterns in bits 0-7 and 16-23. The signs of the elements 0, 2, 4, 6 in the low half and of
  // 1, 3, 5 in the high half, from bit 8 on for one code and from bit 12 on for the other; where that of 7 would be
  // is the shift. The sign of 7 makes the number of minuses even.
  const u32 both = w[piece / 2], k = piece % 2, v = both >> 4 * k;  // signs from bit 8 and 24 on
  u32 odd = (both & 0x0000FF00u) ^ ((both & 0x77000000u) >> 16);
  odd ^= odd >> 2;
  odd ^= odd >> 1;  // bits 8 and 12
  const uint4 p = mine[(k ? (both >> 16) & 0xFFu : both & 0xFFu) * COPIES];
  const u32 last = (odd << (23 - 4 * k)) & 0x80000000u;
  const u32 shift = (((v >> 27) & 1u) * 0x80008000u) ^ 0x34003400u;  // 1/4 or - 1/4
  h[0] = half2_add(p.x ^ ((v << 7) & 0x80008000u), shift);
  h[1] = half2_add(p.y ^ ((v << 6) & 0x80008000u), shift);
  h[2] = half2_add(p.z ^ ((v << 5) & 0x80008000u), shift);
  h[3] = half2_add(p.w ^ ((v << 4) & 0x00008000u) ^ last, shift);
#endif
}
#endif

__device__ __forceinline__ void store(void* y, long long place, float value) {
#if Y_TYPE == 2
  ((float*)y)[place] = value;
#else
  u16 bits;
#if Y_TYPE == 0
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#endif
  ((u16*)y)[place] = bits;
#endif
}

struct Weights {
  uint2 codes[WORDS];
#if FORMAT == 0
  uint2 scales[GROUPS];
#endif
};

struct Stored {
  const uint2 *codes, *scales;  // at the lane's place of the first tile and unit
  int units, groups, span;
};

__device__ __forceinline__ void load_w(Weights& w, const Stored& from, int tile, int unit) {
  if (unit >= from.units) return;
  const uint2* codes = from.codes + (long long)(tile * from.units + unit) * (WORDS * LANES);
#pragma unroll
  for (int j = 0; j < WORDS; j++) w.codes[j] = __ldcs(codes + j * LANES);
#if FORMAT == 0
  const uint2* scales = from.scales + (tile * from.groups + (from.span == 1 ? unit * GROUPS : unit / from.span)) * 8;
#pragma unroll
  for (int part = 0; part < GROUPS; part++) w.scales[part] = __ldcs(scales + part * 8);
#endif
}

// The pairs of inputs that a lane gives to the tensor cores for a piece.
__device__ __forceinline__ void load_b(u32 (&b)[P / 2], const u16* from, bool there) {
#pragma unroll
  for (int i = 0; i < P / 2; i += P == 8 ? 4 : 2) {
#if P == 8
    const uint4 pairs = there ? *(const uint4*)(from + 2 * i) : make_uint4(0, 0, 0, 0);
    b[i + 2] = pairs.z, b[i + 3] = pairs.w;
#else
    const uint2 pairs = there ? *(const uint2*)(from + 2 * i) : make_uint2(0, 0);
#endif
    b[i] = pairs.x, b[i + 1] = pairs.y;
  }
}

// A group of `splits` warps has a tile at a time and divides its units among them.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    matvec(const uint2* __restrict__ codes,   // [tiles, units, WORDS, 32]: row g in x, row g + 8 in y
           const void* __restrict__ source,   // the codebook, or the lattice's 256 points
           const uint2* __restrict__ scales,  // FORMAT 0: [tiles, groups, 8], halves: scale g, g + 8, zero g, g + 8
           const u32* __restrict__ x,         // [tokens, inputs], pairs
           const float* __restrict__ r_in,    // [inputs], at most 1, or none
           const float* __restrict__ r_out,   // [rows] or none
           const float* __restrict__ before,  // [tokens, rows] to be added, or none
           void* __restrict__ y,              // [tokens, rows]
           float factor, int rows, int inputs, int tokens, int units, int groups, int span, int splits) {
  extern __shared__ uint4 shared[];
  const int stride = units * UNIT + 32;  // tokens of a read then lie in other banks
  u16* halves = (u16*)((char*)shared + TABLE_BYTES);       // [tokens, stride]
  float* inverses = (float*)(halves + tokens * stride);    // [tokens, units]
  float* x_sums = inverses + tokens * units;               // [tokens, units, GROUPS]
  float* sums = x_sums + tokens * units * GROUPS;          // [warps, 16 * tokens]
  const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, g = lane >> 2, q = lane & 3;
  // Warps that make no team only help to load.
  const int team = warp / splits, split = warp - team * splits, teams = blockDim.x / LANES / splits;
  const int tiles = (rows + 15) / 16, member = threadIdx.x - team * splits * LANES;
  const Stored from = {codes + lane, scales + g, units, groups, span};
  const int places[2] = {min(2 * q, tokens - 1) * units, min(2 * q + 1, tokens - 1) * units};
  Weights w[DEPTH];
  int tile = team < teams ? blockIdx.x + team * gridDim.x : tiles;
#pragma unroll
  for (int d = 0; d < DEPTH; d++) load_w(w[d], from, tile, tile < tiles ? split + d * splits : units);
  load_x(halves, inverses, x_sums, x, r_in, inputs, tokens, units, stride);
  fill(shared, source);
  __syncthreads();
  for (; tile < tiles; tile += teams * gridDim.x) {
    const int next = tile + teams * (int)gridDim.x;
    float total[4] = {}, c[4] = {};
    for (int first = split; first < units; first += DEPTH * splits) {
#pragma unroll
      for (int d = 0; d < DEPTH; d++) {
        const int unit = first + d * splits;
        if (unit < units) {
#pragma unroll
          for (int piece = 0; piece < PIECES; piece++) {
            u32 low[P / 2], high[P / 2], b[P / 2], words[2][WORDS];
#pragma unroll
            for (int j = 0; j < WORDS; j++) words[0][j] = w[d].codes[j].x, words[1][j] = w[d].codes[j].y;
            load_b(b, halves + g * stride + unit * UNIT + (4 * piece + q) * P, g < tokens);
            decode(low, words[0], piece, shared, lane);
            decode(high, words[1], piece, shared, lane);
#pragma unroll
            for (int s = 0; s < P / 4; s++)
              mma(c, low[2 * s], high[2 * s], low[2 * s + 1], high[2 * s + 1], b[2 * s], b[2 * s + 1]);
#if FORMAT == 0
            if ((piece + 1) % (PIECES / GROUPS) == 0) {
              const int part = piece / (PIECES / GROUPS);
              const uint2 pair = w[d].scales[part];
#pragma unroll
              for (int k = 0; k < 4; k++) {
                const int at = places[k % 2] + unit;
                const float scale = half_to_float((u16)(pair.x >> k / 2 * 16)) * inverses[at];
                total[k] += scale * (c[k] - half_to_float((u16)(pair.y >> k / 2 * 16)) * x_sums[at * GROUPS + part]);
                c[k] = 0;
              }
            }
#else
            if (piece == PIECES - 1)
#pragma unroll
              for (int k = 0; k < 4; k++) {
                total[k] += c[k] * inverses[places[k % 2] + unit];
                c[k] = 0;
              }
#endif
          }
        }
        load_w(w[d], from, tile, unit + DEPTH * splits);
      }
    }
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const int token = 2 * q + k % 2;
      if (token < tokens) sums[(warp * 16 + g + k / 2 * 8) * tokens + token] = total[k];
    }
#pragma unroll
    for (int d = 0; d < DEPTH; d++) load_w(w[d], from, next, next < tiles ? split + d * splits : units);
    asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(splits * LANES) : "memory");
    for (int place = member; place < 16 * tokens; place += splits * LANES) {
      const int line = place / tokens, token = place - line * tokens, row = tile * 16 + line;
      float value = 0;
      for (int i = 0; i < splits; i++) value += sums[(team * splits + i) * 16 * tokens + place];
      if (row < rows) {
        const long long at = (long long)token * rows + row;
        store(y, at, value * (r_out ? factor * r_out[row] : factor) + (before ? before[at] : 0));
      }
    }
    if (next < tiles) asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(splits * LANES) : "memory");
  }
}
