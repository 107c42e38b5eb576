/* How long calls take from C:  call_from_c ours.so by_hand.so

   Both libraries are opened while the program runs, and called through pointers.  For each function and round the time
   of one call in nanoseconds, ours and the other's; a mark of agreement first. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LENGTH 10
#define CALLS 1000000
#define ROUNDS 15

typedef int32_t fixed(const void *, void *, void *);
typedef int32_t sized(int64_t, const void *, void *, void *);
static const char *const names[] = {"scale_float", "scale_double", "gradient", "scale_any"};

static _Alignas(64) double input[16], output[2][16];
static _Alignas(64) char workspace[4096];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static void *found(void *library, const char *prefix, const char *name)
{
    char symbol[64];
    snprintf(symbol, sizeof symbol, "%s%s", prefix, name);
    void *address = dlsym(library, symbol);
    if (!address) exit((fprintf(stderr, "%s\n", dlerror()), 2));
    return address;
}

static double measured(void *function, int is_sized, void *to)
{
    int32_t status = 0;
    double start = now();
    if (is_sized) for (int k = 0; k < CALLS; k++) status |= ((sized *)function)(LENGTH, input, to, workspace);
    else for (int k = 0; k < CALLS; k++) status |= ((fixed *)function)(input, to, workspace);
    if (status) exit((fprintf(stderr, "status %d\n", (int)status), 3));
    return (now() - start) / CALLS;
}

int main(int count, char **given)
{
    void *ours = count == 3 ? dlopen(given[1], RTLD_NOW) : NULL, *theirs = ours ? dlopen(given[2], RTLD_NOW) : NULL;
    if (!theirs) return (fprintf(stderr, "%s\n", count == 3 ? dlerror() : "two libraries"), 1);
    for (int row = 0; row < 4; row++) {
        void *a = found(ours, "calls_", names[row]), *b = found(theirs, "", names[row]);
        int is_float = row == 0 || row == 3, is_sized = row == 3;
        for (int k = 0; k < LENGTH; k++)
            if (is_float) ((float *)input)[k] = 0.25f * (float)k; else input[k] = 0.25 * k;
        for (int round = 0; round < ROUNDS; round++)
            printf("%s %.4f %.4f\n", names[row], measured(a, is_sized, output[0]), measured(b, is_sized, output[1]));
        for (int k = 0; k < LENGTH; k++) {
            double difference = is_float ? ((float *)output[0])[k] - ((float *)output[1])[k] : output[0][k] - output[1][k];
            if (difference > 1e-6 || difference < -1e-6) return (fprintf(stderr, "%s differs\n", names[row]), 4);
        }
    }
    return 0;
}
