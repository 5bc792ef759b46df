// y = x Wᵀ for 1 to 8 tokens, straight from codes: tensor cores take decoded weights from registers.
//
// A few warps share a tile of 16 outputs; each takes every so many units of inputs. Of a tile and unit, lane 4 g + q has
// the rows g and g + 8, and of each piece of 4 P inputs the P inputs from q P on, as the tensor cores want them. Weights
// lie in memory in that order, so a load is contiguous. The warps of a tile then add their sums in a fixed order.

__device__ __forceinline__ void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
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

// Inputs 2 i and 2 i + 1.
__device__ __forceinline__ float2 pair_of(const void* x, long long i) {
#if X_TYPE == 2
  return ((const float2*)x)[i];
#else
  const u32 pair = ((const u32*)x)[i];
#if X_TYPE == 1
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u));
#else
  return make_float2(half_to_float((u16)(pair & 0xFFFFu)), half_to_float((u16)(pair >> 16)));
#endif
#endif
}

// Four inputs of a token from `column` on, times their norms; zeros where there are none.
__device__ __forceinline__ float4 read_x(const void* x, const float* r_in, int column, int inputs, int token) {
  float v[4];
#pragma unroll
  for (int k = 0; k < 4; k += 2) {
    const bool there = column + k < inputs;
    const int from = there ? column + k : 0;
    const float2 pair = pair_of(x, ((long long)token * inputs + from) >> 1);
    const float2 norm = r_in ? *(const float2*)(r_in + from) : make_float2(1, 1);
    v[k] = there ? pair.x * norm.x : 0;
    v[k + 1] = there ? pair.y * norm.y : 0;
  }
  return make_float4(v[0], v[1], v[2], v[3]);
}

// What undoes the scale of a token's unit, and for grids the sum of the inputs of a group in that scale.
struct Scaled {
  float inverse, sum;
};

// All inputs as halves in shared memory [tokens, stride], multiplied by the power of two that brings the largest of a
// token's unit near 2^14, so that halves hold them as well as before. For grids they are also divided by where a code
// has its bits. `scaled` is [tokens, units, GROUPS].
__device__ __forceinline__ void load_x(u16* halves, Scaled* scaled, const void* x, const float* r_in, int inputs,
                                       int tokens, int units, int stride) {
  const int lane = threadIdx.x % LANES, warps = blockDim.x / LANES;
  const float first = FORMAT == 0 && BITS != 4 && lane % 2 ? 0x1p-4f : 1;
  const float second = FORMAT == 0 ? (BITS == 4 ? 0x1p-4f : first * 0x1p-2f) : 1;
  for (int token = 0; token < tokens; token++)
    for (int unit = threadIdx.x / LANES; unit < units; unit += warps) {
      float4 v[QUADS];
      float largest = 0;
#pragma unroll
      for (int i = 0; i < QUADS; i++) {
        const int place = 4 * (i * LANES + lane);
        v[i] = place < UNIT ? read_x(x, r_in, unit * UNIT + place, inputs, token) : make_float4(0, 0, 0, 0);
        largest = fmaxf(largest, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)), fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
      }
      const u32 exponent = max((int)(__reduce_max_sync(~0u, __float_as_uint(largest)) >> 23), 15);
      const u32 raised = min(max(268 - (int)exponent, 25), 253);  // the exponent of the scale, and its inverse's
      const float scale = __uint_as_float(raised << 23);
      const float inverse = __uint_as_float((254 - raised) << 23) * (FORMAT == 0 ? 0x1p24f : 1);
      Scaled* own = scaled + (token * units + unit) * GROUPS;
      if (lane < GROUPS) own[lane].inverse = inverse;
#pragma unroll
      for (int i = 0; i < QUADS; i++) {
        const int place = 4 * (i * LANES + lane);
        const float low = scale * first, high = scale * second;
        const uint2 pairs =
            make_uint2(pack_half2(v[i].x * low, v[i].y * low), pack_half2(v[i].z * high, v[i].w * high));
        if (place < UNIT) *(uint2*)(halves + token * stride + unit * UNIT + place) = pairs;
#if FORMAT == 0
        const float back_first = lane % 2 && BITS != 4 ? 0x1p-20f : 0x1p-24f;
        const float back_second = BITS == 4 ? 0x1p-20f : 4 * back_first;
        float sum = (half_to_float((u16)pairs.x) + half_to_float((u16)(pairs.x >> 16))) * back_first +
                    (half_to_float((u16)pairs.y) + half_to_float((u16)(pairs.y >> 16))) * back_second;
#pragma unroll
        for (int mask = LANES / GROUPS / 2; mask; mask >>= 1) sum += __shfl_xor_sync(~0u, sum, mask);
        if (lane % (LANES / GROUPS) == 0) own[lane / (LANES / GROUPS)].sum = sum;
#endif
      }
    }
}

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

// Where a warp reads next; every load moves it on to the warp's next unit of the tile.
struct Cursor {
  const uint2 *codes, *scales;
  int unit, splits, units, share;

  __device__ __forceinline__ void load(Weights& w) {
    if (unit >= units) return;
#pragma unroll
    for (int j = 0; j < WORDS; j++) w.codes[j] = __ldcs(codes + j * LANES);
#if FORMAT == 0
#pragma unroll
    for (int part = 0; part < GROUPS; part++)
      w.scales[part] = __ldcs(scales + ((unit * share >> 20) * GROUPS + part) * 8);
#endif
    unit += splits;
    codes += splits * (WORDS * LANES);
  }
};

// The pairs of inputs that a lane gives to the tensor cores for a piece.
__device__ __forceinline__ void load_b(u32 (&b)[P / 2], const u16* from) {
#pragma unroll
  for (int i = 0; i < P / 2; i += P == 8 ? 4 : 2) {
#if P == 8
    const uint4 pairs = *(const uint4*)(from + 2 * i);
    b[i + 2] = pairs.z, b[i + 3] = pairs.w;
#else
    const uint2 pairs = *(const uint2*)(from + 2 * i);
#endif
    b[i] = pairs.x, b[i + 1] = pairs.y;
  }
}

// Teams of `splits` warps have a tile at a time and divide its units among them. Warps that make no team help to load.
// Divisions are by numbers that come inverted: `team_of` = ceil(2^16 / splits), `share` = ceil(2^20 / units of a group).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    matvec(const uint2* __restrict__ codes,   // [tiles, units, WORDS, 32]: row g in x, row g + 8 in y
           const void* __restrict__ source,   // the codebook, or the lattice's 256 points
           const uint2* __restrict__ scales,  // FORMAT 0: [tiles, groups, 8], halves: scale g, g + 8, zero g, g + 8
           const void* __restrict__ x,        // [tokens, inputs], inputs even
           const float* __restrict__ r_in,    // [inputs], at most 1, or none
           const float* __restrict__ r_out,   // [rows] or none
           const float* __restrict__ before,  // [tokens, rows] to be added, or none
           void* __restrict__ y,              // [tokens, rows]
           float factor, int rows, int inputs, int tokens, int units, int groups, int share, int splits, int team_of) {
  extern __shared__ uint4 shared[];
  const int stride = units * UNIT + 32;  // tokens of a read then lie in other banks
  u16* halves = (u16*)((char*)shared + TABLE_BYTES);                // [tokens, stride]
  u16* nothing = halves + tokens * stride;                          // [UNIT] zeros, for lanes without a token
  Scaled* scaled = (Scaled*)(nothing + UNIT);                       // [tokens, units, GROUPS]
  float* sums = (float*)(scaled + tokens * units * GROUPS);         // [warps, tokens, 16]
  const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, g = lane >> 2, q = lane & 3;
  const int team = warp * team_of >> 16, split = warp - team * splits, teams = THREADS / LANES * team_of >> 16;
  const int tiles = (rows + 15) / 16, member = threadIdx.x - team * splits * LANES;
  const int places[2] = {min(2 * q, tokens - 1) * units, min(2 * q + 1, tokens - 1) * units};
  for (int i = threadIdx.x; i < UNIT; i += blockDim.x) nothing[i] = 0;
  const u16* mine = (g < tokens ? halves + g * stride : nothing) + q * P;
  const int step = g < tokens ? UNIT : 0;
  int tile = team < teams ? blockIdx.x + team * gridDim.x : tiles;
  Weights w;
  Cursor cursor;
  auto start = [&](int at) {
    const long long first = (long long)at * units + split;
    cursor = {codes + first * (WORDS * LANES) + lane, scales + (long long)at * groups * 8 + g, split, splits,
              at < tiles ? units : 0, share};
    cursor.load(w);
  };
  start(tile);
  fill(shared, source);
#if __CUDA_ARCH__ >= 900
  // The kernel after this one may start to load its weights, as this one has: x comes from the kernel before.
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  load_x(halves, scaled, x, r_in, inputs, tokens, units, stride);
  __syncthreads();
  while (tile < tiles) {
    float total[4] = {}, c[4] = {};
    for (int unit = split; unit < units; unit += splits) {
#pragma unroll
      for (int piece = 0; piece < PIECES; piece++) {
        u32 low[P / 2], high[P / 2], b[P / 2], words[2][WORDS];
#pragma unroll
        for (int j = 0; j < WORDS; j++) words[0][j] = w.codes[j].x, words[1][j] = w.codes[j].y;
        load_b(b, mine + unit * step + 4 * piece * P);
        decode(low, words[0], piece, shared, lane);
        decode(high, words[1], piece, shared, lane);
#pragma unroll
        for (int s = 0; s < P / 4; s++)
          mma(c, low[2 * s], high[2 * s], low[2 * s + 1], high[2 * s + 1], b[2 * s], b[2 * s + 1]);
        if ((piece + 1) % (PIECES / GROUPS) == 0) {
          const int part = piece / (PIECES / GROUPS);
#pragma unroll
          for (int k = 0; k < 4; k++) {
            const Scaled own = scaled[(places[k % 2] + unit) * GROUPS + part];
#if FORMAT == 0
            const uint2 pair = w.scales[part];
            const float zero = half_to_float((u16)(pair.y >> k / 2 * 16));
            total[k] += half_to_float((u16)(pair.x >> k / 2 * 16)) * own.inverse * (c[k] - zero * own.sum);
#else
            total[k] += c[k] * own.inverse;
#endif
            c[k] = 0;
          }
        }
      }
      cursor.load(w);  // the other warps cover for it: more under way costs registers and instructions
    }
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const int token = 2 * q + k % 2;
      if (token < tokens) sums[(warp * tokens + token) * 16 + g + k / 2 * 8] = total[k];
    }
    const int here = tile;
    tile += teams * gridDim.x;
    start(tile);
    asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(splits * LANES) : "memory");
    const int row = here * 16 + member % 16;
    for (int token = member / 16; token < tokens; token += splits * 2) {
      float value = 0;
      for (int i = 0; i < splits; i++) value += sums[((team * splits + i) * tokens + token) * 16 + member % 16];
      if (row < rows) {
        const long long place = (long long)token * rows + row;
        store(y, place, value * (r_out ? factor * r_out[row] : factor) + (before ? before[place] : 0));
      }
    }
    if (tile < tiles) asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(splits * LANES) : "memory");
  }
}
