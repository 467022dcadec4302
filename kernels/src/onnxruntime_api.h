// The part of ONNX Runtime's C API that a custom operator needs, without its headers.
//
// The API is a table of functions that only grows, so an entry keeps its place. The numbers are places in `OrtApi` of
// onnxruntime_c_api.h; tests run the library with the oldest and the newest onnxruntime that encort supports.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;

constexpr uint32_t VERSION = 17;  // of the table: the first one that has KernelContext_ParallelFor

struct ApiBase {
  const void* const* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

extern const void* const* api;  // set when the library is registered

template <int Place, class... Arguments>
Status* call(Arguments... arguments) {
  return reinterpret_cast<Status* (*)(Arguments...)>(const_cast<void*>(api[Place]))(arguments...);
}

enum ErrorCode { FAIL = 1, INVALID_ARGUMENT = 2 };
enum ElementType { UNDEFINED = 0, FLOAT = 1, INT8 = 3, INT32 = 6, BFLOAT16 = 16 };

inline Status* create_status(ErrorCode code, const char* message) { return call<0, ErrorCode, const char*>(code, message); }
inline Status* create_domain(const char* name, Domain** domain) { return call<26>(name, domain); }
inline Status* add_operator(Domain* domain, const struct CustomOp* op) { return call<27>(domain, op); }
inline Status* add_domain(SessionOptions* options, Domain* domain) { return call<28>(options, domain); }
inline Status* tensor_data(Value* value, void** data) { return call<51>(value, data); }
inline Status* element_type(const TensorInfo* info, ElementType* type) { return call<60>(info, type); }
inline Status* rank(const TensorInfo* info, size_t* count) { return call<61>(info, count); }
inline Status* dimensions(const TensorInfo* info, int64_t* sizes, size_t count) { return call<62>(info, sizes, count); }
inline Status* tensor_info(const Value* value, TensorInfo** info) { return call<65>(value, info); }
inline Status* float_attribute(const KernelInfo* info, const char* name, float* value) { return call<85>(info, name, value); }
inline Status* int_attribute(const KernelInfo* info, const char* name, int64_t* value) { return call<86>(info, name, value); }
inline Status* input_count(const KernelContext* context, size_t* count) { return call<88>(context, count); }
inline Status* input(const KernelContext* context, size_t index, const Value** value) { return call<90>(context, index, value); }
inline Status* output(KernelContext* context, size_t index, const int64_t* sizes, size_t rank, Value** value) {
  return call<91>(context, index, sizes, rank, value);
}
inline void release_tensor_info(TensorInfo* info) { call<99>(info); }
inline Status* parallel_for(const KernelContext* context, void (*task)(void*, size_t), size_t count, size_t batches, void* data) {
  return call<274>(context, task, count, batches, data);
}

// OrtCustomOp, up to the fields of version 16 of the API.
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const void* const* api, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  ElementType (*GetInputType)(const CustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const CustomOp*);
  ElementType (*GetOutputType)(const CustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void* kernel, KernelContext*);
  void (*KernelDestroy)(void* kernel);
  int (*GetInputCharacteristic)(const CustomOp*, size_t index);
  int (*GetOutputCharacteristic)(const CustomOp*, size_t index);
  int (*GetInputMemoryType)(const CustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const void* const* api, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext*);
};

constexpr uint32_t CUSTOM_OP_VERSION = 16;
enum Characteristic { REQUIRED = 0, OPTIONAL = 1 };

}  // namespace ort
