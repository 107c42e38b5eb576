/* Functions of ten elements as a careful C programmer would ship them: arguments checked, a status returned. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define LENGTH 10
#define CHECK(type) \
    if (!x || !y) return 1; \
    if (((uintptr_t)x | (uintptr_t)y) % sizeof(type)) return 3

int32_t scale_float(const float *x, float *y, void *workspace)
{
    (void)workspace;
    CHECK(float);
    for (int k = 0; k < LENGTH; k++) y[k] = x[k] * 2 + 1;
    return 0;
}

int32_t scale_double(const double *x, double *y, void *workspace)
{
    (void)workspace;
    CHECK(double);
    for (int k = 0; k < LENGTH; k++) y[k] = x[k] * 2 + 1;
    return 0;
}

int32_t gradient(const double *x, double *y, void *workspace) /* of the sum of sin(x[k]) * x[k] */
{
    (void)workspace;
    CHECK(double);
    for (int k = 0; k < LENGTH; k++) y[k] = cos(x[k]) * x[k] + sin(x[k]);
    return 0;
}

int32_t scale_any(int64_t n, const float *x, float *y, void *workspace)
{
    (void)workspace;
    if (n < 0 || n > INT64_MAX / 8) return 2;
    if (n && (!x || !y)) return 1;
    if (n && ((uintptr_t)x | (uintptr_t)y) % sizeof(float)) return 3;
    for (int64_t k = 0; k < n; k++) y[k] = x[k] * 2 + 1;
    return 0;
}
