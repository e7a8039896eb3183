// Numbers found by measuring. They change speed alone: how much work a task is, what is kept
// together for a cache, where one way becomes better than another. A number that the order of a sum
// depends on says so: a change of it changes the last bits of results.
//
// All were measured on an AMD EPYC of Zen 4 (per core 32 KiB of first cache and 1 MiB of second, 32
// MiB of third for eight cores), most of them on two of its cores. Each has its unit, what a
// smaller and a larger number cost, and the command that measures it again: `sepconv bench` with
// the options given, before and after the change. The sizes of the depthwise kernels' register
// tiles are not here but beside the kernels, since they follow from the number of registers.
#pragma once
#include <cstddef>
#include <cstdint>

namespace sepconv::tuning {

// --- tasks -------------------------------------------------------------------------------------

// Tasks of a pass, at least, where there is work enough. With fewer, threads are idle at the end;
// with more, bands share more rows with their neighbours.
//   --mode depthwise,pointwise --batch 1
inline constexpr int64_t kTasks = 16;

// Vector multiplications for which one more task is worth waking a thread: some microseconds of one
// thread. And the tasks of a thread where there is much more work than that.
//   --mode depthwise --batch 1 --workloads 'mobilenet_v*'
inline constexpr int64_t kTaskVectorProducts = 1 << 14;
inline constexpr int64_t kTasksAThread = 4;

// Elements of depthwise outputs (or input gradients) in a band: 128 KiB of float32, so that the
// input rows that neighbouring bands share stay in the second cache. Smaller bands share more rows.
//   --mode depthwise,depthwise-training
inline constexpr int64_t kBandElements = 32768;

// The same for the kernel's gradient, which reads two tensors. The order of a sum depends on it.
//   --mode depthwise-training
inline constexpr int64_t kGradientBandElements = 16384;

// Elements of a plane's phases in a band: 256 KiB of float32, which stay in the second cache. The
// order of a sum depends on it.
//   --mode depthwise,depthwise-training --workloads eegnet
inline constexpr int64_t kPlaneElements = 65536;

// Elements of a task that only copies or adds. Waking a thread for a smaller one takes longer than
// the task. The order of the sums of the bias' gradient depends on it.
//   --mode separable-training
inline constexpr int64_t kPlainTaskElements = 16384;

// Where an image comes from memory: the bytes of a pixel that a channel part has at least, since
// memory is slow when few lines are read at a time; and the number of channel parts that are made
// even if they have fewer.
//   --mode depthwise --batch 1
inline constexpr int64_t kPixelPartBytes = 1024;
inline constexpr int64_t kPixelParts = 4;

// Outputs of a row piece, of the flat kernel and of the others, whose pieces compute more of what
// they share twice. Of the others, a piece has at least as many columns as the last two say, the
// second times the dilation.
//   --mode depthwise --batch 1 --workloads conv_tasnet
inline constexpr int64_t kFlatPieceOutputs = 1024, kPieceOutputs = 16384;
inline constexpr int64_t kPieceColumns = 64, kPieceDilations = 7;

// Bytes of the input rows between an input's first use and its last, for which a small kernel's
// channels are cut: a fifth of the second cache, which holds outputs too.
//   --mode depthwise --workloads 'mobilenet_v*,xception'
inline constexpr int64_t kSmallBandBytes = 192 << 10;

// Bytes of the window and of the results that a depthwise task has of a half type in float32 at a
// time, and the vectors of channels and the columns that it has at the least: part of a second
// cache. With less, fewer channels of each pixel are read at a time, and pieces of rows share more
// with their neighbours; with more, they leave the cache. The order of a sum depends on it. With 96
// KiB, on a processor with 2 MiB, the times were the same.
//   --mode depthwise --dtype bfloat16 --workloads 'mobilenet_v*'
inline constexpr int64_t kWidenedBytes = 256 << 10;
inline constexpr int64_t kWidenedVectors = 4, kWidenedColumns = 16;

// Bytes of the copy that a small kernel reads instead of pixels that fall on the same sets of the
// first cache.
//   --mode depthwise --workloads 'mobilenet_v1,xception'
inline constexpr int64_t kCopyBytes = 128 << 10;

// Taps in a row of a kernel from which on taps in the padding are left out, and not multiplied by
// zero.
//   --mode depthwise --workloads 'replknet_31b'
inline constexpr int64_t kPaddedTaps = 9;

// --- operations between convolutions -----------------------------------------------------------

// These are reckoned from the others and from the sizes of caches, and not yet measured.

// Elements of a task of such an operation, as of those that only copy or add. Waking a thread for
// fewer takes longer than they do.
//   benchmarks/inference.py
inline constexpr int64_t kArrayTaskElements = 16384;

// Elements of an operand that is repeated so that rows of few channels are computed as longer ones.
// More leave less of the first cache, fewer make shorter rows.
//   benchmarks/inference.py
inline constexpr int64_t kRepeatedElements = 256;

// Elements of a side of the blocks that a transposed copy goes through: a line of float32. Larger
// blocks leave the first cache where rows are powers of two apart, smaller ones read lines twice.
//   benchmarks/inference.py
inline constexpr int64_t kTransposeSide = 16;

// --- the product -------------------------------------------------------------------------------

// The register tile of the product: its columns in vectors, and its rows with 32 vector registers
// and with 16. All but a few registers hold sums; the others hold B's vectors and A's value. A
// smaller tile loads more for each multiplication; of a larger one, sums go to memory and back.
//   --mode separable,pointwise, and with SEPCONV_ISA=x86-64-v3
inline constexpr int kProductVectors = 2;
inline constexpr int kProductRowsOf32 = 12, kProductRowsOf16 = 6;

// Rows of a panel that a micro-kernel multiplies in one round of its loop, where sums can be kept
// in their registers: on a core that another busy thread shares, products of 192 channels and more
// are 6 to 10 % faster than with one.
//   --mode pointwise --workloads mobilenet_v2, with SEPCONV_ISA=x86-64-v3
inline constexpr int kPanelRowsARound = 4;

// Bytes of a panel up to which tiles have the short way of plain_product.h: half of the first
// cache. A larger panel is better asked for line by line while a tile is computed.
//   --mode pointwise --batch 1, with SEPCONV_ISA=x86-64-v3
inline constexpr int64_t kPlainPanelBytes = 16 << 10;

// Rows of B that go through all panels in turn where it is packed: fewer read less of a row of
// memory at a time, more leave less of the panels' lines in the first cache.
//   --mode pointwise --batch 1
inline constexpr int64_t kPackRows = 32;

// Prefetch distances: in lines of a column where a transposed B is packed; in rows of B where a
// micro-kernel packs during the product. With a smaller distance data comes too late, with a larger
// one it may be evicted before its use.
//   --mode pointwise-training
inline constexpr int64_t kTransposeAheadLines = 8, kFillAheadRows = 16;

// Bytes from one line of the first cache to the next one on the same set, and the lines of a set:
// of rows that lie on one set, so many are multiplied at a time. More evict each other, fewer load
// panels more often. Both are properties of the processor: 64 sets of eight lines of 64 bytes.
//   --mode pointwise --workloads 'mobilenet_v1,xception'
inline constexpr int64_t kOneSetBytes = 4096, kOneSetRows = 8;

// Pixels of a tile, which are multiplied by all panels of weights, so that a panel, once in the
// first cache, serves them all. Twice as many for channels_first, where pixels are packed too.
//   --mode separable,pointwise
inline constexpr int64_t kTilePixels = 96;

// Tiles from which on they are half as high, so that the last ones leave no thread idle.
//   --mode pointwise
inline constexpr int64_t kManyTiles = 8;

// Multiplications for which one more task is worth waking a thread, as a power of two; some
// microseconds.
//   --mode pointwise --batch 1
inline constexpr int kTaskProductsLog2 = 17;

// The same of int8, of which an instruction multiplies four times as many. Reckoned, not measured.
//   sepconv run of an int8 program, with --repeat 100
inline constexpr int kTaskBytesProductsLog2 = 19;

// Bytes of packed weights that each thread packs for itself: less than the second cache, where they
// stay for all of its tasks. Larger weights are packed once for all threads.
//   --mode separable,pointwise
inline constexpr int64_t kOwnWeightBytes = 256 << 10;

// Bytes of packed weights that small tiles may read from the third cache again and again; with
// larger weights, tiles are not made smaller to give every thread work.
//   --mode separable --batch 1
inline constexpr int64_t kSharedWeightBytes = 8 << 20;

// Bytes of the rows of a half type that a task has in float32 at a time: part of a second cache,
// where weights are too. Fewer load panels of weights more often. Reckoned, not measured.
//   --mode pointwise --dtype bfloat16, and with SEPCONV_ISA=x86-64-v3
inline constexpr int64_t kConvertedBytes = 256 << 10;

// Bytes that are prefetched at most; more would drive what is in use out of the second cache.
//   --mode pointwise-training
inline constexpr int64_t kAheadBytes = 128 << 10;

// Bytes of an input from which on it is taken to come from memory, not from a cache.
//   --mode depthwise,pointwise
inline constexpr int64_t kFarBytes = 4 << 20;

// --- the separable convolution -----------------------------------------------------------------

// Tiles below which the two steps are fused only if tiles can be made smaller; otherwise they run
// one after the other.
//   --mode separable --batch 1
inline constexpr int64_t kFewTiles = 12;

// Taps of a kernel from which on a tile's window is so much larger than the tile that fusing the
// two steps does not pay.
//   --mode separable --workloads convnext_tiny,replknet_31b
inline constexpr int64_t kWindowTaps = 49;

// Pixels of a part of a small image that one thread takes through both steps.
//   --mode separable --batch 1 --workloads 'mobilenet_v*'
inline constexpr int64_t kPartPixels = 64;

// Bytes of all tensors of a batch part, which goes through several passes before the next one: less
// than the third cache, so that a pass finds there what the one before left. The order of a sum
// depends on it.
//   --mode separable-training --batch 8
inline constexpr int64_t kPartBytes = 8 << 20;

// --- sums over many tasks: the order of sums depends on all of these ---------------------------

// The most groups (each has a partial sum), and the most bytes of all partial sums together. More
// cost more to add up; fewer make fewer tasks where channels cannot be cut.
//   --mode depthwise-training,pointwise-training
inline constexpr int64_t kMostGroups = 32;
inline constexpr int64_t kGroupBytes = 8 << 20;

// Pixels of a group in a pointwise kernel's gradient.
//   --mode pointwise-training
inline constexpr int64_t kGroupPixels = 1024;

// Where a pointwise kernel has at least so many times as many channels as filters, and images at
// least so many pixels together, its gradient is computed with the two exchanged and then
// transposed. The pixels of the channels are packed, those of the filters are not: packing pays for
// itself where there are many filters.
//   --mode pointwise-training
inline constexpr int64_t kExchangedChannels = 2, kExchangedPixels = 512;

// Rows, and elements of a row, that are added up in an array's dtype before the next ones are, as
// vectors in registers; and the elements at least of a part of a large reduction, which has a
// partial result of its own. Reckoned, not measured: fewer lose fewer digits and take more
// instructions.
//   benchmarks/inference.py
inline constexpr int64_t kSumRows = 32, kSumRowElements = 1024;
inline constexpr int64_t kReducePartElements = 16384;

// Bytes of the part of an array that batch normalization sums up by itself.
//   benchmarks/training_step.py
inline constexpr int64_t kBatchNormPartBytes = 128 << 10;

// Elements of what is between a depthwise convolution and a batch normalization after it that both
// go backward through together: whole images, at least one. The order of a sum depends on it.
//   benchmarks/torch_networks.py --tasks training
inline constexpr int64_t kNormalizedElements = 1 << 19;

// With a 1x1 convolution: bytes of a tile of what is between the two, which a second cache holds;
// the pixels of a group, at least; and the fewest groups that keep threads busy. The order of a sum
// depends on them.
//   benchmarks/torch_networks.py --tasks training
inline constexpr int64_t kNormalizedTileBytes = 192 << 10;
inline constexpr int64_t kNormalizedGroupPixels = 512, kNormalizedGroups = 8;

// Bytes of the rows that its passes read together, a few columns of all of them at a time, with 32
// vector registers and with 16. Fewer load and store the columns' numbers more often; more are read
// in too many places at once for the processor to ask for memory ahead. With 16, on a Zen 3, 16 KiB
// took 1.1 to 1.4 times as long after a relu, and single rows 1.5 times as long after a SiLU.
//   benchmarks/torch_networks.py --tasks training
inline constexpr int64_t kBatchNormGroupBytesOf32 = 32 << 10, kBatchNormGroupBytesOf16 = 4 << 10;

// --- programs ------------------------------------------------------------------------------------

// Steps of a program go together by bands of rows (program/chain.h) where what lies between them,
// of an image, has so many bytes: more than a core's second cache keeps beside the rest. On two
// cores with 2 MiB each, from 3/4 MiB on gained 4 % of MobileNetV2 on one thread and lost as much
// on two.
//   benchmarks/inference.py MobileNetV2 EfficientNetB0
inline constexpr int64_t kChainFarBytes = 1536 << 10;

// Bytes of the strips of a chain: what a second cache holds beside weights and the rows that come
// in and go out. More bands would copy more rows from one to the next.
inline constexpr int64_t kChainBytes = 512 << 10;

// Bytes of a step's output, of the whole batch, from which on a program's first steps go a few
// images at a time (program/group.h), and of the largest output of such a group: what the second
// caches of two cores hold. Results depend on it in their last bits. On two cores with 2 MiB each,
// at a batch of 8, MobileNet's first four steps took two thirds of the time so.
//   benchmarks/inference.py MobileNet MobileNetV2 --batch 8
inline constexpr int64_t kGroupImagesBytes = 4 << 20;

// The least rows of a band, which share most of their inputs; the most links of a chain; and the
// parts that a thread computes: where they meet, rows are computed twice, while a single one would
// have to wait for the slower thread.
inline constexpr int64_t kChainLeastRows = 4;
inline constexpr int kMostLinks = 2;
inline constexpr int64_t kChainPartsAThread = 2;

// Pixels of a plane, at most, for which a depthwise step of tensors with the channels first works
// on copies with the channels last; and so for a batch of fewer images than these. On two cores of
// an AMD EPYC of Zen 4, a batch of 8 with planes of 4 x 4 took a fifth of the time so, one with
// planes of 14 x 14 two thirds, and one of 32 x 32 as long. Results depend on it in their last
// bits.
//   benchmarks/torch_networks.py, in contiguous memory
inline constexpr int64_t kTurnedImages = 4, kTurnedPixels = 256, kTurnedPixelsOfFew = 16;

// --- threads and memory ------------------------------------------------------------------------

// Pauses during which an idle worker stays awake, 50 to 150 us in all, so that a call's next step
// or the next layer need not wake it. More would keep a core from the engine's own threads.
//   --quick, and examples that train on each engine
inline constexpr int kIdlePauses = 4000;

// The most participants of a call that begin with tasks of their own; any other takes tasks from
// theirs. More cost each call the clearing of their counters, 64 bytes each.
inline constexpr int kMostShares = 64;

// Scratch memory that is kept for the next call: the most pieces, and their bytes in all. Memory
// that is given back is zeroed by the system when it is asked for again, 0.1 ms a MiB.
//   --mode separable-training
inline constexpr int kKeptAllocations = 16;
inline constexpr size_t kKeptBytes = size_t{64} << 20;

// Bytes of the smallest array for which huge pages are asked: for smaller ones the request costs
// more than it saves.
//   benchmarks/training_step.py --engine jax
inline constexpr size_t kHugePageBytes = size_t{256} << 10;

}  // namespace sepconv::tuning
