/* What one core can do: the kernels of W1, W2 and W3 by hand, with AVX-512 intrinsics.  A yardstick, not a peer: they
 * take plain pointers and sizes, check nothing, and are written for this one machine's registers and caches.
 *
 *     gcc -O3 -march=native -ffp-contract=off -fPIC -shared benchmarks/limits.c -o limits.so -lm
 *
 * Rows are contiguous; any size is right, the last vector of a row is masked.  The polynomials are those of
 * codegen/vmath/coefficients.py.  Prefetches run a row, or 4 KiB, ahead.
 */
#include <immintrin.h>
#include <math.h>

#define LANES 16
#define AHEAD 1024 /* elements */

typedef __m512 V;

static inline V splat(float x) { return _mm512_set1_ps(x); }
static inline __mmask16 tail(long left) { return (__mmask16)((1u << left) - 1); }
static inline void prefetch(const float *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

/* e^x for x <= 88; below -104 it is 0. */
static inline V exponential(V x) {
    x = _mm512_max_ps(x, splat(-104.0f));
    V n = _mm512_roundscale_ps(_mm512_mul_ps(x, splat(1.44269504f)), 8);
    V r = _mm512_fnmadd_ps(n, splat(0.693145751953125f), x);
    r = _mm512_fnmadd_ps(n, splat(1.42860682030941723e-6f), r);
    V p = splat(0.0013822759501636028f);
    p = _mm512_fmadd_ps(p, r, splat(0.008369027636945248f));
    p = _mm512_fmadd_ps(p, r, splat(0.041668251156806946f));
    p = _mm512_fmadd_ps(p, r, splat(0.166665181517601f));
    p = _mm512_fmadd_ps(p, r, splat(0.4999999403953552f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, r);
    return _mm512_scalef_ps(_mm512_add_ps(p, splat(1.0f)), n);
}

/* 1/x by one step of Newton's iteration. */
static inline V reciprocal(V x) {
    V y = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(y, _mm512_fnmadd_ps(x, y, splat(2.0f)));
}

/* -- W1: y = 2x + 1 -- */
void scale(const float *x, float *y, long n) {
    for (long i = 0; i < n; i += LANES) {
        __mmask16 live = n - i < LANES ? tail(n - i) : 0xffff;
        V v = _mm512_maskz_loadu_ps(live, x + i);
        _mm512_mask_storeu_ps(y + i, live, _mm512_fmadd_ps(v, splat(2.0f), splat(1.0f)));
    }
}

void scale_f64(const double *x, double *y, long n) {
    for (long i = 0; i < n; i += 8) {
        __mmask8 live = n - i < 8 ? (__mmask8)tail(n - i) : 0xff;
        __m512d v = _mm512_maskz_loadu_pd(live, x + i);
        _mm512_mask_storeu_pd(y + i, live, _mm512_fmadd_pd(v, _mm512_set1_pd(2.0), _mm512_set1_pd(1.0)));
    }
}

/* -- W2: tanh(a x + b) sigmoid(c x) - exp(-x^2) / (1 + |x|) -- */
static inline V chain_of(V x, V twice_a, V twice_b, V minus_c) {
    const V one = splat(1.0f), high = splat(80.0f);
    V e = exponential(_mm512_min_ps(_mm512_fmadd_ps(twice_a, x, twice_b), high));
    V tanh = _mm512_fnmadd_ps(splat(2.0f), reciprocal(_mm512_add_ps(e, one)), one);
    V sigmoid = reciprocal(_mm512_add_ps(one, exponential(_mm512_min_ps(_mm512_mul_ps(minus_c, x), high))));
    V bell = exponential(_mm512_fnmadd_ps(x, x, _mm512_setzero_ps()));
    return _mm512_fmsub_ps(tanh, sigmoid, _mm512_mul_ps(bell, reciprocal(_mm512_add_ps(one, _mm512_abs_ps(x)))));
}

void chain(const float *x, float *y, long n, float a, float b, float c) {
    const V twice_a = splat(2 * a), twice_b = splat(2 * b), minus_c = splat(-c);
    long whole = n / LANES * LANES;
    for (long i = 0; i < whole; i += LANES) {
        prefetch(x + i + AHEAD);
        _mm512_storeu_ps(y + i, chain_of(_mm512_loadu_ps(x + i), twice_a, twice_b, minus_c));
    }
    if (whole < n) {
        __mmask16 live = tail(n - whole);
        V v = _mm512_maskz_loadu_ps(live, x + whole);
        _mm512_mask_storeu_ps(y + whole, live, chain_of(v, twice_a, twice_b, minus_c));
    }
}

/* -- W3: rows of (rows, columns); each walks its row some times while the next one is fetched -- */
static inline float row_maximum(const float *x, long n) {
    V a = splat(-INFINITY), b = a, c = a, d = a;
    long i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        for (long k = 0; k < 4; k++) prefetch(x + i + n + k * LANES);
        a = _mm512_max_ps(a, _mm512_loadu_ps(x + i));
        b = _mm512_max_ps(b, _mm512_loadu_ps(x + i + LANES));
        c = _mm512_max_ps(c, _mm512_loadu_ps(x + i + 2 * LANES));
        d = _mm512_max_ps(d, _mm512_loadu_ps(x + i + 3 * LANES));
    }
    for (; i < n; i += LANES) {
        __mmask16 live = n - i < LANES ? tail(n - i) : 0xffff;
        a = _mm512_mask_max_ps(a, live, a, _mm512_maskz_loadu_ps(live, x + i));
    }
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)));
}

/* The sum of e^(x - top); with `keeps` the exponentials go to y. */
static inline float row_exponentials(const float *x, float *y, long n, float top, int keeps) {
    const V m = splat(top);
    V s = _mm512_setzero_ps(), t = s;
    long i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        V a = exponential(_mm512_sub_ps(_mm512_loadu_ps(x + i), m));
        V b = exponential(_mm512_sub_ps(_mm512_loadu_ps(x + i + LANES), m));
        s = _mm512_add_ps(s, a);
        t = _mm512_add_ps(t, b);
        if (keeps) {
            _mm512_storeu_ps(y + i, a);
            _mm512_storeu_ps(y + i + LANES, b);
        }
    }
    for (; i < n; i += LANES) {
        __mmask16 live = n - i < LANES ? tail(n - i) : 0xffff;
        V a = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(live, x + i), m));
        s = _mm512_mask_add_ps(s, live, s, a);
        if (keeps) _mm512_mask_storeu_ps(y + i, live, a);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(s, t));
}

void softmax(const float *x, float *y, long rows, long columns) {
    for (long r = 0; r < rows; r++, x += columns, y += columns) {
        V factor = splat(1.0f / row_exponentials(x, y, columns, row_maximum(x, columns), 1));
        for (long i = 0; i < columns; i += LANES) {
            __mmask16 live = columns - i < LANES ? tail(columns - i) : 0xffff;
            _mm512_mask_storeu_ps(y + i, live, _mm512_mul_ps(_mm512_maskz_loadu_ps(live, y + i), factor));
        }
    }
}

void logsumexp(const float *x, float *y, long rows, long columns) {
    for (long r = 0; r < rows; r++, x += columns) {
        float top = row_maximum(x, columns);
        y[r] = logf(row_exponentials(x, 0, columns, top, 0)) + top;
    }
}

void layernorm(const float *x, const float *g, const float *b, float *y, long rows, long columns, float epsilon) {
    for (long r = 0; r < rows; r++, x += columns, y += columns) {
        V s[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()}, t[4];
        long i = 0;
        for (; i + 4 * LANES <= columns; i += 4 * LANES)
            for (long k = 0; k < 4; k++) {
                prefetch(x + i + columns + k * LANES);
                s[k] = _mm512_add_ps(s[k], _mm512_loadu_ps(x + i + k * LANES));
            }
        for (; i < columns; i += LANES)
            s[0] = _mm512_add_ps(s[0], _mm512_maskz_loadu_ps(columns - i < LANES ? tail(columns - i) : 0xffff, x + i));
        const V mean = splat(_mm512_reduce_add_ps(s[0] + s[1] + s[2] + s[3]) / (float)columns);
        for (long k = 0; k < 4; k++) t[k] = _mm512_setzero_ps();
        for (i = 0; i + 4 * LANES <= columns; i += 4 * LANES)
            for (long k = 0; k < 4; k++) {
                V d = _mm512_sub_ps(_mm512_loadu_ps(x + i + k * LANES), mean);
                t[k] = _mm512_fmadd_ps(d, d, t[k]);
            }
        for (; i < columns; i += LANES) {
            __mmask16 live = columns - i < LANES ? tail(columns - i) : 0xffff;
            V d = _mm512_maskz_sub_ps(live, _mm512_maskz_loadu_ps(live, x + i), mean);
            t[0] = _mm512_fmadd_ps(d, d, t[0]);
        }
        float variance = _mm512_reduce_add_ps(t[0] + t[1] + t[2] + t[3]) / (float)columns;
        const V factor = splat(1.0f / sqrtf(variance + epsilon));
        for (i = 0; i < columns; i += LANES) {
            __mmask16 live = columns - i < LANES ? tail(columns - i) : 0xffff;
            V d = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(live, x + i), mean), factor);
            V gain = _mm512_maskz_loadu_ps(live, g + i), bias = _mm512_maskz_loadu_ps(live, b + i);
            _mm512_mask_storeu_ps(y + i, live, _mm512_fmadd_ps(d, gain, bias));
        }
    }
}
