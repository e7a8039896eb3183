// What the files that define TensorFlow's operations share: owners of its objects, errors, and how
// an operation is registered.
#pragma once
#include <exception>
#include <initializer_list>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "tensorflow_c_api.h"

namespace tensorflow_kernel {

template <class T, void (*destroy)(T*)>
struct Deleter {
  void operator()(T* object) const { destroy(object); }
};
using Status = std::unique_ptr<TF_Status, Deleter<TF_Status, TF_DeleteStatus>>;
using Tensor = std::unique_ptr<TF_Tensor, Deleter<TF_Tensor, TF_DeleteTensor>>;
using Shape = std::unique_ptr<TF_ShapeHandle, Deleter<TF_ShapeHandle, TF_DeleteShapeHandle>>;

// Thrown where TensorFlow has put its own error into the status.
struct TensorFlowError {};

inline void check(const Status& status) {
  if (TF_GetCode(status.get()) != TF_OK) throw TensorFlowError{};
}

[[noreturn]] inline void fail(const std::string& message) { throw std::invalid_argument(message); }

// Runs `body` and puts whatever it throws into `status`; no exception may enter TensorFlow. Returns
// whether all went well.
template <class Body>
bool guarded(const Status& status, Body body) {
  try {
    body();
    return true;
  } catch (const TensorFlowError&) {
  } catch (const std::invalid_argument& error) {
    TF_SetStatus(status.get(), TF_INVALID_ARGUMENT, error.what());
  } catch (const std::bad_alloc&) {
    TF_SetStatus(status.get(), TF_RESOURCE_EXHAUSTED, "sepconv: out of memory.");
  } catch (const std::exception& error) {
    TF_SetStatus(status.get(), TF_INTERNAL, error.what());
  }
  return false;
}

inline std::string shape_text(const TF_Tensor* tensor) {
  std::string text = "(";
  for (int i = 0; i < TF_NumDims(tensor); ++i)
    text += (i ? ", " : "") + std::to_string(TF_Dim(tensor, i));
  return text + ")";
}

// ---- registration, when the library is loaded

struct Definition {
  const char* name;
  std::initializer_list<const char*> inputs, outputs, attributes;
  void (*infer)(TF_ShapeInferenceContext*, TF_Status*);
  void* (*create)(TF_OpKernelConstruction*);
  void (*compute)(void*, TF_OpKernelContext*);
  void (*destroy)(void*);
};

// Where this fails, TensorFlow knows no such operation and the Python module says so.
inline void register_operation(const Definition& definition) {
  const Status status(TF_NewStatus());
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder(definition.name);
  for (const char* input : definition.inputs) TF_OpDefinitionBuilderAddInput(op, input);
  for (const char* output : definition.outputs) TF_OpDefinitionBuilderAddOutput(op, output);
  for (const char* attribute : definition.attributes) TF_OpDefinitionBuilderAddAttr(op, attribute);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(op, definition.infer);
  TF_RegisterOpDefinition(op, status.get());
  if (TF_GetCode(status.get()) != TF_OK) return;

  TF_KernelBuilder* kernel = TF_NewKernelBuilder(definition.name, "CPU", definition.create,
                                                 definition.compute, definition.destroy);
  TF_RegisterKernelBuilder(definition.name, kernel, status.get());
}

}  // namespace tensorflow_kernel
