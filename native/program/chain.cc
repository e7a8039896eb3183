// Chains of steps by bands of rows.
//
// A task computes consecutive rows of the last link's output, a band at a time. For a band each
// link computes the rows that the next one needs and that it has not computed before. What it has
// of them is kept in a strip: the last rows of one band are the first of the next. Only where two
// tasks meet are rows computed twice.
#include "chain.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <numeric>

#include "../memory.h"
#include "../tuning.h"

namespace sepconv::program {
namespace {

// A runner that has the calling thread alone: its tasks run one after the other.
Runner& alone() {
  static Runner runner{[](Runner*, int64_t tasks, TaskFunction function, void* context) {
                         for (int64_t task = 0; task < tasks; ++task) function(context, task);
                       },
                       [](const Runner*) { return 1; }};
  return runner;
}

// How far a link has come: rows of its output.
struct Course {
  Rows kept{0, 0};  // computed for bands before, and in the strip
  Rows now{0, 0};   // to compute for this band
};

class Chain : public Call {
 public:
  Chain(std::vector<Link> links, const Shape& first_input, int64_t first_item, int64_t most_bytes)
      : links_(std::move(links)) {
    const Call& last = *links_.back().call;
    shape = last.shape;
    images_ = shape[0];
    rows_ = shape[1];
    first_row_ = row_bytes(first_input, first_item);
    first_image_ = first_row_ * first_input[1];
    for (const Link& link : links_) {
      row_.push_back(row_bytes(link.call->shape, link.item));
      multiply_adds += link.call->multiply_adds;
    }
    band_ = rows_;
    // The strips of later bands are no larger than those of the first ones.
    const auto looked_at = [&] { return Rows{0, std::min(rows_, 4 * band_ + 64)}; };
    while (band_ > tuning::kChainLeastRows && sum(strips(looked_at(), band_)) > most_bytes)
      band_ = std::max<int64_t>((band_ / 2 + 1) / 2 * 2, tuning::kChainLeastRows);
  }

  void run(const void* const* inputs, void* output, Runner& runner) const override {
    const int64_t threads = runner.concurrency();
    const int64_t wanted = threads == 1 ? 1 : threads * tuning::kChainPartsAThread;
    const int64_t parts =
        std::clamp<int64_t>((wanted + images_ - 1) / images_, 1, std::max<int64_t>(rows_ / 2, 1));
    struct Context {
      const Chain* chain;
      const void* const* inputs;
      char* output;
      int64_t parts;
      std::atomic<bool> failed{false};
    } context{this, inputs, static_cast<char*>(output), parts};
    runner.run(
        &runner, images_ * parts,
        [](void* argument, int64_t task) {
          Context& here = *static_cast<Context*>(argument);
          try {
            here.chain->run_part(here.inputs, here.output, task / here.parts, task % here.parts,
                                 here.parts);
          } catch (const std::bad_alloc&) {
            here.failed.store(true, std::memory_order_relaxed);
          }
        },
        &context);
    if (context.failed.load(std::memory_order_relaxed)) throw std::bad_alloc();
  }

 private:
  static int64_t row_bytes(const Shape& image, int64_t item) { return image[2] * image[3] * item; }

  // Sets what every link computes for rows `band` of the output.
  void plan_band(Rows band, std::vector<Course>& course) const {
    Rows needed = band;
    for (size_t i = links_.size(); i-- > 0;) {
      Course& here = course[i];
      if (i + 1 == links_.size()) {
        here.now = needed;
      } else {
        // Rows before these are not read again. ({0, 0} says that none are needed.)
        here.kept.first = std::max(here.kept.first, needed.first);
        here.kept.last = std::max(here.kept.last, here.kept.first);
        here.now = {here.kept.last, std::max(here.kept.last, needed.last)};
      }
      needed = here.now.count() > 0 ? links_[i].call->rows_read(here.now) : Rows{0, 0};
    }
  }

  // The most bytes of every link's strip, for these rows in bands of `band_rows`.
  std::vector<int64_t> strips(Rows rows, int64_t band_rows) const {
    std::vector<int64_t> bytes(links_.size(), 0);
    std::vector<Course> course(links_.size());
    for (int64_t row = rows.first; row < rows.last; row += band_rows) {
      plan_band({row, std::min(row + band_rows, rows.last)}, course);
      for (size_t i = 0; i + 1 < links_.size(); ++i) {
        bytes[i] = std::max(bytes[i], (course[i].now.last - course[i].kept.first) * row_[i]);
        course[i].kept.last = course[i].now.last;
      }
    }
    for (int64_t& one : bytes) one = (one + 63) / 64 * 64;
    return bytes;
  }
  static int64_t sum(const std::vector<int64_t>& bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
  }

  void run_part(const void* const* inputs, char* output, int64_t image, int64_t part,
                int64_t parts) const {
    const Rows rows{rows_ * part / parts, rows_ * (part + 1) / parts};
    // The strips for these rows alone: how many rows a link computes for the first band depends on
    // where the part begins.
    const std::vector<int64_t> bytes = strips(rows, band_);
    void* const memory = outer_scratch(static_cast<size_t>(sum(bytes)));
    if (memory == nullptr) throw std::bad_alloc();
    std::vector<char*> strip;
    char* next = static_cast<char*>(memory);
    for (const int64_t one : bytes) {
      strip.push_back(next);
      next += one;
    }
    std::vector<Course> course(links_.size());
    for (int64_t row = rows.first; row < rows.last; row += band_)
      run_band({row, std::min(row + band_, rows.last)}, inputs, output, image, strip, course);
  }

  void run_band(Rows band, const void* const* inputs, char* output, int64_t image,
                const std::vector<char*>& strip, std::vector<Course>& course) const {
    std::vector<int64_t> held;  // the rows that the strips began with
    for (const Course& one : course) held.push_back(one.kept.first);
    plan_band(band, course);
    for (size_t i = 0; i < links_.size(); ++i) {
      Course& here = course[i];
      const bool last = i + 1 == links_.size();
      if (!last && here.kept.first != held[i] && here.kept.count() > 0)
        std::memmove(strip[i], strip[i] + (here.kept.first - held[i]) * row_[i],
                     static_cast<size_t>(here.kept.count() * row_[i]));
      if (here.now.count() <= 0) continue;
      const Rows read = links_[i].call->rows_read(here.now);
      const char* x = i == 0 ? static_cast<const char*>(inputs[0]) + image * first_image_ +
                                   read.first * first_row_
                             : strip[i - 1] + (read.first - course[i - 1].kept.first) * row_[i - 1];
      char* y = last ? output + (image * rows_ + here.now.first) * row_[i]
                     : strip[i] + (here.now.first - here.kept.first) * row_[i];
      const void* all = links_[i].second < 0 ? nullptr : inputs[links_[i].second];
      links_[i].call->run_rows({image, x, read, all, y, here.now}, alone());
      if (!last) here.kept.last = here.now.last;
    }
  }

  const std::vector<Link> links_;
  int64_t images_, rows_, first_row_, first_image_;
  std::vector<int64_t> row_;  // bytes of a row of each link's output
  int64_t band_;              // how many rows of the output are computed at a time
};

}  // namespace

std::unique_ptr<Call> make_chain(std::vector<Link> links, const Shape& first_input,
                                 int64_t first_item, int64_t strip_bytes) {
  return std::make_unique<Chain>(std::move(links), first_input, first_item, strip_bytes);
}

}  // namespace sepconv::program
