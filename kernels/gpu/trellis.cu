// Cyclic walks through a bitshift trellis near their targets, as kernels/trellis.py has it: a block of threads a walk.
//
// A state is (j, u): the BITS that the next step shifts out above those that it keeps. Of the states with one u, only
// the least cost and its j are kept. A thread takes all u that one `root` leads to, so that it reads each cost once,
// and their choices j share a word. Costs are in units of the sums that values are made of: |x - value|² times the
// variance of those sums, in float32, with fused multiply-adds.
//
// Set from outside: BITS, STATE_BITS, CODE (0 1mad, 1 3inst), SCRAMBLE_A and SCRAMBLE_B, STEPS (an even number),
// THREADS of a block.

typedef unsigned int u32;
typedef unsigned long long u64;

#define BRANCHES (1 << BITS)
#define OVERLAPS (1 << (STATE_BITS - BITS))
#define ROOTS (OVERLAPS / BRANCHES)

#if BITS == 2
typedef unsigned char Choices; // 4 choices of 2 bits
#elif BITS == 3
typedef u32 Choices; // 8 of 3 bits
#else
typedef u64 Choices; // 16 of 4 bits
#endif

// A half whose exponent is neither all zeros nor all ones.
__device__ __forceinline__ float normal_half(u32 bits) {
  return __uint_as_float((bits & 0x8000u) << 16 | ((bits & 0x7FFFu) << 13) + (112u << 23));
}

// What a scrambled state's value is before it is standardised; exact.
__device__ __forceinline__ float sum_of(u32 word) {
#if CODE == 0
  return (float)__dp4a(word, 0x01010101u, 0u);
#else
  word = (word & 0x8FFF8FFFu) ^ 0x3B603B60u;
  return normal_half(word & 0xFFFFu) + normal_half(word >> 16);
#endif
}

// All steps over the targets, cyclic, from `start` on. Costs before the first and after the last are in the first half
// of `costs` [2, OVERLAPS]; choices go to back [STEPS, ROOTS].
__device__ void forward(const float* x, int start, float mean, float deviation, float* costs, Choices* back) {
  for (int step = 0; step < STEPS; ++step) {
    const float target = x[(start + step) % STEPS] * deviation + mean;
    const float* before = costs + step % 2 * OVERLAPS;
    float4* after = (float4*)(costs + (step + 1) % 2 * OVERLAPS);
    for (int root = threadIdx.x; root < ROOTS; root += THREADS) {
      float reached[BRANCHES];
#pragma unroll
      for (int j = 0; j < BRANCHES; ++j) reached[j] = before[j * ROOTS + root];
      Choices choices = 0;
#pragma unroll
      for (int quad = 0; quad < BRANCHES / 4; ++quad) {
        float least[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int branch = 4 * quad + i;
          const u32 word = SCRAMBLE_A * (u32)(root * BRANCHES + branch) + SCRAMBLE_B;
          u32 choice = 0;
#pragma unroll
          for (int j = 0; j < BRANCHES; ++j) {
            const float d = target - sum_of(word + SCRAMBLE_A * (u32)(j * OVERLAPS));
            const float cost = fmaf(d, d, reached[j]);
            if (j == 0 || cost < least[i]) {
              least[i] = cost;
              choice = j;
            }
          }
          choices |= (Choices)choice << branch * BITS;
        }
        after[root * (BRANCHES / 4) + quad] = make_float4(least[0], least[1], least[2], least[3]);
      }
      back[step * ROOTS + root] = choices;
    }
    __syncthreads();
  }
}

// From the overlap u after the last step back to the one before step `stop`, noting the states; by one thread.
__device__ u32 trace(const Choices* back, int stop, u32 u, int* states) {
  for (int step = STEPS - 1; step >= stop; --step) {
    const u32 j = (u32)(back[step * ROOTS + u / BRANCHES] >> u % BRANCHES * BITS) & (BRANCHES - 1);
    const u32 state = j * OVERLAPS + u;
    states[step] = state;
    u = state / BRANCHES;
  }
  return u;
}

// x [count, STEPS] to states [count, STEPS]; back [gridDim.x, STEPS, ROOTS] is scratch.
extern "C" __global__ void __launch_bounds__(THREADS)
    search(const float* x, Choices* back, int* states, float mean, float deviation, int count) {
  extern __shared__ float4 memory[];
  __shared__ u64 nearest;
  __shared__ u32 overlap;
  float* costs = (float*)memory;
  Choices* own = back + (long long)blockIdx.x * STEPS * ROOTS;
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory"); // a launch may begin before the kernel that makes x has ended
#endif
  for (int walk = blockIdx.x; walk < count; walk += gridDim.x) {
    const float* targets = x + (long long)walk * STEPS;
    int* found = states + (long long)walk * STEPS;
    for (int u = threadIdx.x; u < OVERLAPS; u += THREADS) costs[u] = 0;
    if (threadIdx.x == 0) nearest = ~0ull;
    __syncthreads();
    forward(targets, STEPS / 2, mean, deviation, costs, own);
    u64 least = ~0ull; // costs are not negative, so that their bits are in order; of equals the first
    for (int u = threadIdx.x; u < OVERLAPS; u += THREADS) {
      const u64 here = (u64)__float_as_uint(costs[u]) << 32 | u;
      least = here < least ? here : least;
    }
    atomicMin(&nearest, least);
    __syncthreads();
    for (int u = threadIdx.x; u < OVERLAPS; u += THREADS) costs[u] = __uint_as_float(0x7F800000u);
    if (threadIdx.x == 0) overlap = trace(own, STEPS / 2, (u32)nearest, found);
    __syncthreads();
    if (threadIdx.x == 0) costs[overlap] = 0;
    __syncthreads();
    forward(targets, 0, mean, deviation, costs, own);
    if (threadIdx.x == 0) trace(own, 0, overlap, found);
    __syncthreads(); // what is traced is written again
  }
}
