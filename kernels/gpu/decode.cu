// What codes stand for: `decode` gives the P weights that a lane has of a row and piece, as pairs of halves, and `fill`
// puts the table that it looks into, if any, into shared memory. matvec.cu, which follows this file, says what lanes and
// pieces are.
//
// Set from outside: FORMAT (0 grid, 1 codebook, 2 lattice, 3 short points of the lattice), BITS of a code, DIM of a
// codeword, GROUPS of inputs with scales of their own in a unit, THREADS of a block, X_TYPE and Y_TYPE (0 half, 1
// bfloat16, 2 float).

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
#if FORMAT != 0
#undef GROUPS
#define GROUPS 1
#endif
#define QUADS ((UNIT / 4 + LANES - 1) / LANES)

__device__ __forceinline__ u32 half2_add(u32 a, u32 b) {
  u32 d;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
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
