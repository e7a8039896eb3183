// The part of TensorFlow's C API (tensorflow/c/ops.h, kernels.h, tf_tensor.h, tf_status.h) that
// bind_tensorflow.cc calls, declared here so that the package builds without TensorFlow.
//
// That API keeps its binary form across releases, which TensorFlow's C++ one does not; so one build
// serves every TensorFlow a user may install. Checked against the headers of 2.18 and 2.21:
// tests/engines/test_tensorflow_c_api.py compiles this file with SEPCONV_TENSORFLOW_HEADERS, which
// takes the types from the installed TensorFlow, and a wrong declaration below is then an error.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(SEPCONV_TENSORFLOW_HEADERS)
#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#else

extern "C" {
struct TF_Status;
struct TF_Tensor;
struct TF_KernelBuilder;
struct TF_OpDefinitionBuilder;
struct TF_OpKernelConstruction;
struct TF_OpKernelContext;
struct TF_ShapeHandle;
struct TF_ShapeInferenceContext;

typedef unsigned char TF_Bool;
typedef enum TF_DataType {
  TF_FLOAT = 1,
  TF_DOUBLE = 2,
  TF_BFLOAT16 = 14,
  TF_HALF = 19
} TF_DataType;
typedef enum TF_Code {
  TF_OK = 0,
  TF_INVALID_ARGUMENT = 3,
  TF_RESOURCE_EXHAUSTED = 8,
  TF_INTERNAL = 13
} TF_Code;
}

#endif

static_assert(TF_FLOAT == 1 && TF_DOUBLE == 2 && TF_BFLOAT16 == 14 && TF_HALF == 19 &&
              sizeof(TF_DataType) == sizeof(int));
static_assert(TF_OK == 0 && TF_INVALID_ARGUMENT == 3 && TF_RESOURCE_EXHAUSTED == 8 &&
              TF_INTERNAL == 13 && sizeof(TF_Code) == sizeof(int));
static_assert(sizeof(TF_Bool) == 1);

// X(result, name, parameters). A list, since tensorflow_stub.cc needs the same functions.
#define SEPCONV_TENSORFLOW_FUNCTIONS(X)                                                          \
  X(TF_Status*, TF_NewStatus, (void))                                                            \
  X(void, TF_DeleteStatus, (TF_Status*))                                                         \
  X(void, TF_SetStatus, (TF_Status*, TF_Code, const char*))                                      \
  X(TF_Code, TF_GetCode, (const TF_Status*))                                                     \
  /* operations */                                                                               \
  X(TF_OpDefinitionBuilder*, TF_NewOpDefinitionBuilder, (const char*))                           \
  X(void, TF_OpDefinitionBuilderAddAttr, (TF_OpDefinitionBuilder*, const char*))                 \
  X(void, TF_OpDefinitionBuilderAddInput, (TF_OpDefinitionBuilder*, const char*))                \
  X(void, TF_OpDefinitionBuilderAddOutput, (TF_OpDefinitionBuilder*, const char*))               \
  X(void, TF_OpDefinitionBuilderSetShapeInferenceFunction,                                       \
    (TF_OpDefinitionBuilder*, void (*)(TF_ShapeInferenceContext*, TF_Status*)))                  \
  X(void, TF_RegisterOpDefinition, (TF_OpDefinitionBuilder*, TF_Status*))                        \
  /* shapes */                                                                                   \
  X(TF_ShapeHandle*, TF_NewShapeHandle, ())                                                      \
  X(void, TF_DeleteShapeHandle, (TF_ShapeHandle*))                                               \
  X(void, TF_ShapeInferenceContextGetInput,                                                      \
    (TF_ShapeInferenceContext*, int, TF_ShapeHandle*, TF_Status*))                               \
  X(void, TF_ShapeInferenceContextSetOutput,                                                     \
    (TF_ShapeInferenceContext*, int, TF_ShapeHandle*, TF_Status*))                               \
  X(void, TF_ShapeInferenceContextWithRank,                                                      \
    (TF_ShapeInferenceContext*, TF_ShapeHandle*, int64_t, TF_ShapeHandle*, TF_Status*))          \
  X(void, TF_ShapeInferenceContextSubshape,                                                      \
    (TF_ShapeInferenceContext*, TF_ShapeHandle*, int64_t, int64_t, TF_ShapeHandle*, TF_Status*)) \
  X(void, TF_ShapeInferenceContextConcatenateShapes,                                             \
    (TF_ShapeInferenceContext*, TF_ShapeHandle*, TF_ShapeHandle*, TF_ShapeHandle*, TF_Status*))  \
  X(void, TF_ShapeInferenceContextSetUnknownShape, (TF_ShapeInferenceContext*, TF_Status*))      \
  /* kernels */                                                                                  \
  X(TF_KernelBuilder*, TF_NewKernelBuilder,                                                      \
    (const char*, const char*, void* (*)(TF_OpKernelConstruction*),                              \
     void (*)(void*, TF_OpKernelContext*), void (*)(void*)))                                     \
  X(void, TF_RegisterKernelBuilder, (const char*, TF_KernelBuilder*, TF_Status*))                \
  X(void, TF_OpKernelConstruction_Failure, (TF_OpKernelConstruction*, TF_Status*))               \
  X(void, TF_OpKernelConstruction_GetAttrSize,                                                   \
    (TF_OpKernelConstruction*, const char*, int32_t*, int32_t*, TF_Status*))                     \
  X(void, TF_OpKernelConstruction_GetAttrType,                                                   \
    (TF_OpKernelConstruction*, const char*, TF_DataType*, TF_Status*))                           \
  X(void, TF_OpKernelConstruction_GetAttrInt64,                                                  \
    (TF_OpKernelConstruction*, const char*, int64_t*, TF_Status*))                               \
  X(void, TF_OpKernelConstruction_GetAttrInt64List,                                              \
    (TF_OpKernelConstruction*, const char*, int64_t*, int, TF_Status*))                          \
  X(void, TF_OpKernelConstruction_GetAttrBoolList,                                               \
    (TF_OpKernelConstruction*, const char*, TF_Bool*, int, TF_Status*))                          \
  X(void, TF_OpKernelContext_Failure, (TF_OpKernelContext*, TF_Status*))                         \
  X(void, TF_GetInput, (TF_OpKernelContext*, int, TF_Tensor**, TF_Status*))                      \
  X(TF_Tensor*, TF_AllocateOutput,                                                               \
    (TF_OpKernelContext*, int, TF_DataType, const int64_t*, int, size_t, TF_Status*))            \
  X(void, TF_DeleteTensor, (TF_Tensor*))                                                         \
  X(int, TF_NumDims, (const TF_Tensor*))                                                         \
  X(int64_t, TF_Dim, (const TF_Tensor*, int))                                                    \
  X(void*, TF_TensorData, (const TF_Tensor*))

extern "C" {
#define SEPCONV_DECLARE(result, name, parameters) result name parameters;
SEPCONV_TENSORFLOW_FUNCTIONS(SEPCONV_DECLARE)
#undef SEPCONV_DECLARE
}
