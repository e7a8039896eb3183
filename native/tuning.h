// Numbers that were found by measuring and change speed alone: how much work a task is, what is
// kept together for a cache, from where on one way is better than another. A number on which the
// order of a sum depends says so: to change it changes the last bits of results.
//
// All were measured on an AMD EPYC of Zen 4 (per core 32 KiB of first cache and 1 MiB of second,
// 32 MiB of third among eight), most of them on two of its cores. Each has its unit, what a smaller
// and a larger number cost, and the command that measures it again: `sepconv bench` with what is
// said here behind it, before and after. How many registers a depthwise kernel's tile takes is not
// here but beside the kernel, since it follows from the number of registers.
#pragma once
#include <cstdint>

namespace sepconv::tuning {

// --- tasks -------------------------------------------------------------------------------------

// Tasks that a pass is cut into at least, where there is work enough. Fewer leave threads idle at
// the end; more share more rows with their neighbours.
//   --mode depthwise,pointwise --batch 1
inline constexpr int64_t kTasks = 16;

// Products of vectors, some microseconds of one thread, for which one more task is worth waking a
// thread; and tasks a thread where there are many more of them.
//   --mode depthwise --batch 1 --workloads 'mobilenet_v*'
inline constexpr int64_t kTaskVectorProducts = 1 << 14;
inline constexpr int64_t kTasksAThread = 4;

// Elements of depthwise outputs (or input gradients) a band: 128 KiB of float32, so that the rows
// of inputs that neighbours share stay in the second cache. Smaller bands share more rows.
//   --mode depthwise,depthwise-training
inline constexpr int64_t kBandElements = 32768;

// The same for the kernel's gradient, which reads two tensors. The order of a sum depends on it.
//   --mode depthwise-training
inline constexpr int64_t kGradientBandElements = 16384;

// Elements of a plane's phases a band, 256 KiB of float32, which stay in the second cache. The
// order of a sum depends on it.
//   --mode depthwise,depthwise-training --workloads eegnet
inline constexpr int64_t kPlaneElements = 65536;

// Elements a task of what only copies or adds. Smaller tasks are waited for longer than they run.
// The order of the sums of the bias' gradient depends on it.
//   --mode separable-training
inline constexpr int64_t kPlainTaskElements = 16384;

// Bytes a pixel below which a part of its channels is not made smaller where the image comes from
// memory, since memory is slow at less than some lines at a time; and parts that are made all the
// same.
//   --mode depthwise --batch 1
inline constexpr int64_t kPixelPartBytes = 1024;
inline constexpr int64_t kPixelParts = 4;

// Outputs of a piece of a row: where rows are gone along, and of any other kernel, whose pieces
// compute more of what they share twice. A piece is at least as many columns as the last two say,
// the second times the dilation.
//   --mode depthwise --batch 1 --workloads conv_tasnet
inline constexpr int64_t kFlatPieceOutputs = 1024, kPieceOutputs = 16384;
inline constexpr int64_t kPieceColumns = 64, kPieceDilations = 7;

// Bytes of a band's rows, from an input's first use to its last, that a small kernel's channels are
// cut for; a fifth of the second cache, which holds outputs too.
//   --mode depthwise --workloads 'mobilenet_v*,xception'
inline constexpr int64_t kSmallBandBytes = 192 << 10;

// Bytes of the copy that a small kernel sees of pixels that lie on the same sets of the first
// cache.
//   --mode depthwise --workloads 'mobilenet_v1,xception'
inline constexpr int64_t kCopyBytes = 128 << 10;

// Taps in a row from which on those in the padding are left out, and not multiplied by zero.
//   --mode depthwise --workloads 'replknet_31b'
inline constexpr int64_t kPaddedTaps = 9;

// --- the product -------------------------------------------------------------------------------

// The register tile: vectors of columns, and rows where there are 32 vector registers and where
// there are 16. All but a few registers hold sums; those left are for B's vectors and A's value. A
// smaller tile loads more for each product, of a larger one sums go to memory and back.
//   --mode separable,pointwise, and with SEPCONV_ISA=x86-64-v3
inline constexpr int kProductVectors = 2;
inline constexpr int kProductRowsOf32 = 12, kProductRowsOf16 = 6;

// Rows of B that go through all panels in turn where it is packed: fewer read less of a row of
// memory at a time, more leave less of the panels' lines in the first cache.
//   --mode pointwise --batch 1
inline constexpr int64_t kPackRows = 32;

// How far ahead memory is asked for: where a transposed B is packed, in lines of a column; where a
// micro-kernel packs on the way, in rows of B. Nearer it comes too late, farther it may be driven
// out before its use.
//   --mode pointwise-training
inline constexpr int64_t kTurnAheadLines = 8, kFillAheadRows = 16;

// Bytes from one line of the first cache to the next on the same set, and lines of a set: so many
// rows are multiplied at a time that lie on one set. More drive each other out, fewer load panels
// more often. They are the processor's: 64 sets of eight lines of 64 bytes.
//   --mode pointwise --workloads 'mobilenet_v1,xception'
inline constexpr int64_t kOneSetBytes = 4096, kOneSetRows = 8;

// Rows of a tile that go through all panels of weights, so that a panel, once in the first cache,
// serves them all; twice as many pixels where they are packed themselves (channels_first).
//   --mode separable,pointwise
inline constexpr int64_t kTilePixels = 96;

// Tiles of rows from which on they are half as high, so that the last leave no thread idle.
//   --mode pointwise
inline constexpr int64_t kManyTiles = 8;

// Multiplications for which one more task is worth waking a thread, as a power of two; some
// microseconds.
//   --mode pointwise --batch 1
inline constexpr int kTaskProductsLog2 = 17;

// Bytes of packed weights that each thread packs for itself: less than the second cache, where they
// stay for all its tasks. Of more, a thread's share is packed once for all.
//   --mode separable,pointwise
inline constexpr int64_t kOwnWeightBytes = 256 << 10;

// Bytes of packed weights that tiles read from the third cache rather than that they are fewer.
//   --mode separable --batch 1
inline constexpr int64_t kSharedWeightBytes = 8 << 20;

// Bytes that are asked for ahead of their use; more would drive out of the second cache what is in
// use.
//   --mode pointwise-training
inline constexpr int64_t kAheadBytes = 128 << 10;

// Bytes of an input that is taken to come from memory, and not from a cache.
//   --mode depthwise,pointwise
inline constexpr int64_t kFarBytes = 4 << 20;

// --- the separable convolution -----------------------------------------------------------------

// Tiles below which one step after the other is better than tiles that feed the product.
//   --mode separable --batch 1
inline constexpr int64_t kFewTiles = 12;

// Taps from which on a tile's window is so many times the tile that tiles do not pay.
//   --mode separable --workloads convnext_tiny,replknet_31b
inline constexpr int64_t kWindowTaps = 49;

// Pixels of a part of a small image that one thread takes through both steps.
//   --mode separable --batch 1 --workloads 'mobilenet_v*'
inline constexpr int64_t kPartPixels = 64;

// Bytes of all tensors that go through several passes together: less than the third cache, so that
// one pass finds what another left. The order of a sum depends on it.
//   --mode separable-training --batch 8
inline constexpr int64_t kPartBytes = 8 << 20;

// Elements of the half types' tensors that are in float32 at a time: 1 MiB, which a second cache
// holds. The order of a sum depends on it.
//   benchmarks/inference.py has no half types: time separable_conv2d on bfloat16 arrays of the
//   shapes (8, 56, 56, 128), (3, 3, 128, 1) and (1, 1, 128, 128) with python -m timeit
inline constexpr int64_t kHalfPartElements = 1 << 18;

// --- sums over many tasks: the order of sums depends on all of these ---------------------------

// Partial sums at most, and the bytes of all of them together: adding them up costs as much as they
// are large, and there are no more tasks than partial sums where a kernel cannot be split.
//   --mode depthwise-training,pointwise-training
inline constexpr int64_t kMostGroups = 32;
inline constexpr int64_t kGroupBytes = 8 << 20;

// Pixels of a kernel's gradient for each group of partial sums.
//   --mode pointwise-training
inline constexpr int64_t kGroupPixels = 1024;

// Bytes of a part of an array that batch normalization sums up by itself.
//   benchmarks/training_step.py
inline constexpr int64_t kBatchNormPartBytes = 128 << 10;

}  // namespace sepconv::tuning
