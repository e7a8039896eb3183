// The parts of the native test program; each counts its checks by CHECK.
#pragma once

namespace test {

void check_values(int problems);  // random convolutions against plain loops, on every runner
void check_halves();              // bfloat16 and float16: all their numbers, and batches in parts
void check_conflicts(int problems);
void check_turned(int problems);       // channels by the 512: pixels on the same sets of the cache
void check_pointwise(int problems);    // the same for the 1x1 product alone
void check_products(int problems);     // matrix products of other types than the kernels' own
void check_half_products();            // 1x1 products of half types, and of pairs of bfloat16
void check_half_steps(int problems);   // convolutions of half types, and where they are rounded
void check_int8(int problems);         // convolutions of int8, to the bit
void check_int8_arrays(int rounds);    // and what is between them
void check_batch_norm(int problems);   // batch normalization in training, and its gradients
void check_normalized(int problems);   // and those of the convolution before it, together
void check_elementwise(int rounds);    // operations an element at a time, of one array and of two
void check_arrays(int problems);       // windows, reductions, normalization, moves of elements
void check_narrow_arrays(int rounds);  // those of bfloat16 and uint8, against float32's
void check_levels();      // what a level asks of a processor is what its compiler flags may use
void check_plans();       // which kernel serves a geometry, and how its work is cut
void check_geometry();    // resolve(): sizes, padding, and what it refuses
void check_huge_pages();  // advice on memory: any address, and nothing that is there changes
void check_programs(int networks);  // networks as one call: chains, memory, threads, refusals
void check_threads(int rounds);     // many threads at once, the number of threads changing
void check_fork(int forks);         // children compute while the parent's threads go on

}  // namespace test
