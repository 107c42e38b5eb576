/* What the processor can do at most: fused multiply-adds and copying.  Built by benchmarks.native, called by ctypes.

   The vectors are as wide as the compiler may make them (-march=native): GCC's vector extension, so that the same
   text serves AVX-512, AVX2 and NEON. */
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define CHAINS 12 /* independent sums: latency times throughput of the units there are */

#define PEAK(name, type)                                                                                              \
    typedef type name##_vector __attribute__((vector_size(BYTES)));                                                   \
    /* floating-point operations done; `sink` gets a value so that none is left out */                                \
    int64_t name(int64_t rounds, type *sink)                                                                          \
    {                                                                                                                 \
        name##_vector sum[CHAINS], factor, term;                                                                      \
        for (int k = 0; k < (int)(BYTES / sizeof(type)); k++) {                                                       \
            factor[k] = (type)0.999;                                                                                  \
            term[k] = (type)0.001;                                                                                    \
            for (int c = 0; c < CHAINS; c++) sum[c][k] = (type)(1 + c);                                               \
        }                                                                                                             \
        for (int64_t r = 0; r < rounds; r++) {                                                                        \
            _Pragma("GCC unroll 12") for (int c = 0; c < CHAINS; c++) sum[c] = sum[c] * factor + term;                \
        }                                                                                                             \
        *sink = 0;                                                                                                    \
        for (int c = 0; c < CHAINS; c++)                                                                              \
            for (int k = 0; k < (int)(BYTES / sizeof(type)); k++) *sink += sum[c][k];                                 \
        return rounds * CHAINS * 2 * (int64_t)(BYTES / sizeof(type));                                                 \
    }

PEAK(peak_float, float)
PEAK(peak_double, double)

/* Reads n floats; the sum is returned so that none is left out. */
float read_all(const float *x, int64_t n)
{
    peak_float_vector sum[4];
    memset(sum, 0, sizeof sum);
    int64_t step = 4 * (int64_t)(BYTES / sizeof(float));
    for (int64_t k = 0; k + step <= n; k += step)
        for (int c = 0; c < 4; c++) sum[c] += *(const peak_float_vector *)(x + k + c * (step / 4));
    float total = 0;
    for (int c = 0; c < 4; c++)
        for (int k = 0; k < (int)(BYTES / sizeof(float)); k++) total += sum[c][k];
    return total;
}
