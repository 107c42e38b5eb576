// Trains the digits network from C++ alone: the library brings the training step, its derivatives and Adam.
//
//     python examples/cpp/export.py build          libdigits.so, digits.h, digits.bin and files for CMake
//     cmake -S examples/cpp -B build/cpp -DCMAKE_PREFIX_PATH=$PWD/build && cmake --build build/cpp
//     build/cpp/train build/digits.bin 200 build/trained.safetensors
//
// digits.bin: the number of images (int32), their pixels (float32, 64 each), their labels (int32).
#include "digits.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int64_t batch = 64, pixels = 64;

void check(int32_t status)
{
    if (status != DIGITS_OK) throw std::runtime_error(digits_strerror(status));
}

struct Data {
    std::vector<float> images;
    std::vector<int32_t> labels;
    int64_t count() const { return static_cast<int64_t>(labels.size()); }
};

Data read_data(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    int32_t count = 0;
    file.read(reinterpret_cast<char *>(&count), sizeof count);
    if (!file || count < batch) throw std::runtime_error("no digits in " + path);
    Data data;
    data.images.resize(static_cast<std::size_t>(count * pixels));
    data.labels.resize(static_cast<std::size_t>(count));
    file.read(reinterpret_cast<char *>(data.images.data()),
              static_cast<std::streamsize>(data.images.size() * sizeof(float)));
    file.read(reinterpret_cast<char *>(data.labels.data()),
              static_cast<std::streamsize>(data.labels.size() * sizeof(int32_t)));
    if (!file) throw std::runtime_error(path + " is cut off");
    return data;
}

struct Free {
    void operator()(digits_state *state) const { digits_free(state); }
    void operator()(void *block) const { std::free(block); }
};

std::unique_ptr<digits_state, Free> new_state()
{
    digits_state *state = nullptr;
    check(digits_new(&state));
    return std::unique_ptr<digits_state, Free>(state);
}

std::unique_ptr<void, Free> workspace(int64_t nbytes)
{
    const auto size = static_cast<std::size_t>((nbytes + 63) / 64 * 64);
    return std::unique_ptr<void, Free>(size ? std::aligned_alloc(64, size) : nullptr);
}

void train(const Data &data, int steps, const std::string &path)
{
    const auto state = new_state();
    const auto room = workspace(digits_train_step_workspace_size(batch));
    const int64_t batches = data.count() / batch;
    for (int step = 0; step < steps; ++step) {
        const int64_t first = step % batches * batch;
        float loss = 0;
        check(digits_train_step(batch, &data.images[static_cast<std::size_t>(first * pixels)],
                                &data.labels[static_cast<std::size_t>(first)], &loss, state.get(), room.get()));
        if ((step + 1) % 50 == 0) std::printf("step %4d  loss %.9g\n", step + 1, static_cast<double>(loss));
    }
    check(digits_save(state.get(), path.c_str()));
}

}  // namespace

int main(int argc, char **argv)
{
    if (argc != 4) {
        std::fprintf(stderr, "usage: train digits.bin STEPS trained.safetensors\n");
        return 2;
    }
    try {
        train(read_data(argv[1]), std::atoi(argv[2]), argv[3]);
    } catch (const std::exception &problem) {
        std::fprintf(stderr, "train: %s\n", problem.what());
        return 1;
    }
}
