/*
 * Classifies digits from C: the weights are the pages of the file that examples/cpp/train.cpp wrote.
 *
 *     python examples/cpp/export.py build                     libdigits.so, digits.h, digits.bin
 *     build/cpp/train build/digits.bin 200 build/trained.safetensors
 *     cc -std=c99 examples/c/classify.c $(pkg-config --cflags --libs build/digits.pc) -Wl,-rpath,build -o build/classify
 *     build/classify build/digits.bin build/trained.safetensors
 *
 * digits.bin: the number of images (int32), their pixels (float32, 64 each), their labels (int32).
 */
#include "digits.h"

#include <stdio.h>
#include <stdlib.h>

enum { PIXELS = 64, CLASSES = 10, BATCH = 100 };

/* Memory at a multiple of 64 bytes; *block is what free takes. */
static void *aligned(int64_t size, void **block)
{
    *block = size < 0 ? NULL : malloc((size_t)size + 64);
    return *block == NULL ? NULL : (char *)*block + (64 - (size_t)*block % 64);
}

static int largest(const float *scores)
{
    int best = 0;
    for (int k = 1; k < CLASSES; k++)
        if (scores[k] > scores[best]) best = k;
    return best;
}

/* The number of right answers among the images, or -1 with a message. */
static int64_t right_answers(const float *images, const int32_t *labels, int64_t count, const char *weights)
{
    struct digits_state *state = NULL;
    void *block = NULL, *workspace = aligned(digits_predict_workspace_size(BATCH), &block);
    float scores[BATCH * CLASSES];
    int64_t right = 0;
    int32_t status = digits_map(&state, weights);
    for (int64_t first = 0; status == DIGITS_OK && first < count; first += BATCH) {
        const int64_t size = count - first < BATCH ? count - first : BATCH;
        status = digits_predict(size, images + first * PIXELS, scores, state, workspace);
        for (int64_t k = 0; status == DIGITS_OK && k < size; k++)
            right += largest(scores + k * CLASSES) == labels[first + k];
    }
    if (status != DIGITS_OK) fprintf(stderr, "classify: %s: %s\n", weights, digits_strerror(status));
    digits_free(state);
    free(block);
    return status == DIGITS_OK ? right : -1;
}

static int classify(FILE *file, const char *weights)
{
    int32_t count = 0;
    int done = 1;
    if (fread(&count, sizeof count, 1, file) != 1 || count < 0) return done;
    float *images = malloc(((size_t)count * PIXELS + 1) * sizeof *images);
    int32_t *labels = malloc(((size_t)count + 1) * sizeof *labels);
    if (images && labels && fread(images, sizeof *images, (size_t)count * PIXELS, file) == (size_t)count * PIXELS
        && fread(labels, sizeof *labels, (size_t)count, file) == (size_t)count) {
        const int64_t right = right_answers(images, labels, count, weights);
        if (right >= 0) printf("%lld of %d digits\n", (long long)right, (int)count);
        done = right < 0;
    } else {
        fprintf(stderr, "classify: the digits are cut off\n");
    }
    free(images);
    free(labels);
    return done;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: classify digits.bin trained.safetensors\n");
        return 2;
    }
    if (digits_interface() != DIGITS_INTERFACE) {
        fprintf(stderr, "classify: the library is of another header\n");
        return 1;
    }
    FILE *file = fopen(argv[1], "rb");
    if (file == NULL) {
        fprintf(stderr, "classify: cannot open %s\n", argv[1]);
        return 1;
    }
    const int status = classify(file, argv[2]);
    fclose(file);
    return status;
}
