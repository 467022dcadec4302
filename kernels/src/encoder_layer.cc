// The operator encort.EncoderLayer: reads a layer and its texts from ONNX Runtime, and runs them.
//
// Inputs: hidden (tokens, hidden) float32; cu_seqlens (texts + 1) int32;
//   weight, scale, bias, multiplier of the products qkv, attention_output, intermediate and output (see layer.h);
//   weight and bias of attention_norm and output_norm; optionally distance_bias (heads, 2 * longest - 1) float32.
// Attributes: heads, activation (0 Gelu, 1 Gelu by tanh, 2 Relu), epsilon,
//   and PRODUCT_zero_point, PRODUCT_inputs and PRODUCT_outputs for each product.
#include <atomic>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "instruction_sets.h"
#include "onnxruntime_api.h"

namespace ort {
const void* const* api = nullptr;
}

namespace encort {
namespace {

constexpr const char* PRODUCTS[] = {"qkv", "attention_output", "intermediate", "output"};
constexpr size_t HIDDEN = 0, BOUNDS = 1, FIRST_PRODUCT = 2, FIRST_NORM = 18, DISTANCE_BIAS = 22, INPUTS = 23;
constexpr double WORTH_THREADS = 4e6;  // multiplications of a layer from which waking threads takes less than it saves

// ONNX Runtime has made the message of a failed call already.
struct Failure {
  ort::Status* status;
};

void check(ort::Status* status) {
  if (status != nullptr) throw Failure{status};
}

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument("EncoderLayer: " + message);
}

struct Tensor {
  ort::ElementType type = ort::UNDEFINED;
  std::vector<int64_t> sizes;
  void* data = nullptr;

  int64_t count() const {
    int64_t product = 1;
    for (int64_t size : sizes) product *= size;
    return product;
  }

  template <class Value>
  const Value* values(ort::ElementType expected, int64_t least, const char* name) const {
    require(type == expected && count() >= least, std::string(name) + " has another type or too few values");
    return static_cast<const Value*>(data);
  }
};

Tensor read(const ort::KernelContext* context, size_t index) {
  const ort::Value* value = nullptr;
  check(ort::input(context, index, &value));
  if (value == nullptr) return {};
  Tensor tensor;
  ort::TensorInfo* info = nullptr;
  check(ort::tensor_info(value, &info));
  std::unique_ptr<ort::TensorInfo, void (*)(ort::TensorInfo*)> owner(info, ort::release_tensor_info);
  size_t rank = 0;
  check(ort::rank(info, &rank));
  tensor.sizes.resize(rank);
  check(ort::dimensions(info, tensor.sizes.data(), rank));
  check(ort::element_type(info, &tensor.type));
  check(ort::tensor_data(const_cast<ort::Value*>(value), &tensor.data));
  return tensor;
}

class OnnxRuntimeThreads final : public Parallel {
 public:
  OnnxRuntimeThreads(const ort::KernelContext* context, double work) : context_(context), on_threads_(work >= WORTH_THREADS) {}

  void run(Task task, size_t count, void* data) const override {
    if (on_threads_ && count > 1) return run_on_threads(task, count, data);
    for (size_t index = 0; index < count; ++index) task(data, index);
  }

 private:
  // An exception must not leave a thread of ONNX Runtime; the only one that a task has is of memory.
  struct Guarded {
    Task task;
    void* data;
    std::atomic<bool> has_failed{false};

    static void run(void* guarded, size_t index) {
      auto* self = static_cast<Guarded*>(guarded);
      try {
        self->task(self->data, index);
      } catch (const std::bad_alloc&) {
        self->has_failed = true;
      }
    }
  };

  void run_on_threads(Task task, size_t count, void* data) const {
    Guarded guarded{task, data};
    check(ort::parallel_for(context_, Guarded::run, count, 0, &guarded));
    if (guarded.has_failed) throw std::bad_alloc();
  }

  const ort::KernelContext* context_;
  bool on_threads_;
};

class EncoderLayer {
 public:
  explicit EncoderLayer(const ort::KernelInfo* info) : instruction_set_(choose_instruction_set()) {
    require(instruction_set_ != nullptr, "this processor has none of the instruction sets");
    layer_.heads = static_cast<int>(integer(info, "heads"));
    layer_.activation = static_cast<Activation>(integer(info, "activation"));
    check(ort::float_attribute(info, "epsilon", &layer_.attention_norm.epsilon));
    layer_.output_norm.epsilon = layer_.attention_norm.epsilon;
    Linear* linears[] = {&layer_.qkv, &layer_.attention_output, &layer_.intermediate, &layer_.output};
    for (int i = 0; i < 4; ++i) {
      const std::string name = PRODUCTS[i];
      linears[i]->inputs = static_cast<int>(integer(info, (name + "_inputs").c_str()));
      linears[i]->outputs = static_cast<int>(integer(info, (name + "_outputs").c_str()));
      check(ort::float_attribute(info, (name + "_zero_point").c_str(), &linears[i]->zero_point));
    }
    layer_.hidden = layer_.qkv.inputs;
    const int hidden = layer_.hidden, inner = layer_.intermediate.outputs;
    require(layer_.heads > 0 && hidden > 0 && inner > 0 && hidden % (2 * layer_.heads) == 0, "the heads have odd sizes");
    require(layer_.qkv.outputs == 3 * hidden && layer_.attention_output.inputs == hidden &&
                layer_.attention_output.outputs == hidden && layer_.intermediate.inputs == hidden &&
                layer_.output.inputs == inner && layer_.output.outputs == hidden,
            "the sizes of the products do not fit together");
    require(layer_.activation <= Activation::relu, "unknown activation");
  }

  void compute(ort::KernelContext* context) const {
    Layer layer = layer_;
    Linear* linears[] = {&layer.qkv, &layer.attention_output, &layer.intermediate, &layer.output};
    for (int i = 0; i < 4; ++i) read_linear(context, FIRST_PRODUCT + 4 * i, *linears[i]);
    const int width = round_up(layer.hidden, LANES);
    Norm* norms[] = {&layer.attention_norm, &layer.output_norm};
    for (int i = 0; i < 2; ++i) {
      norms[i]->weight = read(context, FIRST_NORM + 2 * i).values<float>(ort::FLOAT, width, "norm");
      norms[i]->bias = read(context, FIRST_NORM + 2 * i + 1).values<float>(ort::FLOAT, width, "norm");
    }
    const Tensor hidden = read(context, HIDDEN), bounds = read(context, BOUNDS);
    require(hidden.sizes.size() == 2 && hidden.sizes[1] == layer.hidden, "hidden is not (tokens, hidden)");
    const Texts texts = read_texts(bounds, hidden.sizes[0]);
    layer.distance_bias = read_distance_bias(context, texts);

    ort::Value* result = nullptr;
    check(ort::output(context, 0, hidden.sizes.data(), 2, &result));
    void* y = nullptr;
    check(ort::tensor_data(result, &y));
    const double work = double(texts.tokens()) * layer.hidden * (4.0 * layer.hidden + 2.0 * layer.intermediate.outputs);
    instruction_set_->run(layer, texts, hidden.values<float>(ort::FLOAT, 0, "hidden"), static_cast<float*>(y),
                          OnnxRuntimeThreads(context, work));
  }

 private:
  static int64_t integer(const ort::KernelInfo* info, const char* name) {
    int64_t value = 0;
    check(ort::int_attribute(info, name, &value));
    require(value >= 0 && value < (1 << 24), std::string(name) + " is out of range");
    return value;
  }

  static void read_linear(const ort::KernelContext* context, size_t first, Linear& linear) {
    const Tensor weight = read(context, first);
    const int64_t outputs = round_up(linear.outputs, LANES);
    linear.format = weight.type == ort::INT8 ? Format::int8 : Format::bf16;
    const int group = linear.format == Format::int8 ? 4 : 2;
    const int64_t values = outputs * round_up(linear.inputs, group);
    linear.weight = weight.values<void>(linear.format == Format::int8 ? ort::INT8 : ort::BFLOAT16, values, "weight");
    linear.scale = read(context, first + 1).values<float>(ort::FLOAT, outputs, "scale");
    linear.bias = read(context, first + 2).values<float>(ort::FLOAT, outputs, "bias");
    const int64_t multipliers = linear.format == Format::int8 ? round_up(linear.inputs, LANES) : 0;
    linear.multiplier = read(context, first + 3).values<float>(ort::FLOAT, multipliers, "multiplier");
  }

  static Texts read_texts(const Tensor& bounds, int64_t tokens) {
    require(bounds.count() > 0, "cu_seqlens is empty");
    const Texts texts = {bounds.values<int32_t>(ort::INT32, 1, "cu_seqlens"), static_cast<int>(bounds.count()) - 1};
    require(texts.starts[0] == 0 && texts.tokens() == tokens, "cu_seqlens does not begin with 0 or end with the tokens");
    for (int i = 0; i < texts.count; ++i) require(texts.starts[i] < texts.starts[i + 1], "a text has no tokens");
    return texts;
  }

  DistanceBias read_distance_bias(const ort::KernelContext* context, const Texts& texts) const {
    size_t inputs = 0;
    check(ort::input_count(context, &inputs));
    if (inputs <= DISTANCE_BIAS) return {nullptr, 0};
    const Tensor bias = read(context, DISTANCE_BIAS);
    if (bias.data == nullptr) return {nullptr, 0};
    require(bias.sizes.size() == 2 && bias.sizes[0] == layer_.heads && bias.sizes[1] % 2 == 1, "distance_bias is not (heads, 2 n - 1)");
    const int longest = static_cast<int>(bias.sizes[1] + 1) / 2;
    for (int i = 0; i < texts.count; ++i)
      require(texts.starts[i + 1] - texts.starts[i] <= longest, "a text is longer than distance_bias");
    return {bias.values<float>(ort::FLOAT, 0, "distance_bias"), longest};
  }

  const InstructionSet* instruction_set_;
  Layer layer_{};
};

// Runs a function and gives its exception to ONNX Runtime.
template <class Function>
ort::Status* guarded(Function function) {
  try {
    function();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::invalid_argument& error) {
    return ort::create_status(ort::INVALID_ARGUMENT, error.what());
  } catch (const std::exception& error) {
    return ort::create_status(ort::FAIL, error.what());
  }
}

const ort::CustomOp OPERATOR = [] {
  ort::CustomOp op{};
  op.version = ort::CUSTOM_OP_VERSION;
  op.GetName = [](const ort::CustomOp*) { return "EncoderLayer"; };
  op.GetExecutionProviderType = [](const ort::CustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputType = [](const ort::CustomOp*, size_t index) {
    if (index == BOUNDS) return ort::INT32;
    const bool is_weight = index >= FIRST_PRODUCT && index < FIRST_NORM && (index - FIRST_PRODUCT) % 4 == 0;
    return is_weight ? ort::UNDEFINED : ort::FLOAT;
  };
  op.GetInputTypeCount = [](const ort::CustomOp*) { return INPUTS; };
  op.GetOutputType = [](const ort::CustomOp*, size_t) { return ort::FLOAT; };
  op.GetOutputTypeCount = [](const ort::CustomOp*) { return size_t{1}; };
  op.KernelDestroy = [](void* kernel) { delete static_cast<EncoderLayer*>(kernel); };
  op.GetInputCharacteristic = [](const ort::CustomOp*, size_t index) {
    return int{index == DISTANCE_BIAS ? ort::OPTIONAL : ort::REQUIRED};
  };
  op.GetOutputCharacteristic = [](const ort::CustomOp*, size_t) { return int{ort::REQUIRED}; };
  op.GetInputMemoryType = [](const ort::CustomOp*, size_t) { return 0; };
  op.CreateKernelV2 = [](const ort::CustomOp*, const void* const*, const ort::KernelInfo* info, void** kernel) {
    return guarded([&] { *kernel = new EncoderLayer(info); });
  };
  op.KernelComputeV2 = [](void* kernel, ort::KernelContext* context) {
    return guarded([&] { static_cast<EncoderLayer*>(kernel)->compute(context); });
  };
  return op;
}();

}  // namespace
}  // namespace encort

// The entry that ONNX Runtime calls when a session registers the library.
extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  ort::api = base->GetApi(ort::VERSION);
  ort::Domain* domain = nullptr;
  if (ort::Status* status = ort::create_domain("encort", &domain)) return status;
  if (ort::Status* status = ort::add_operator(domain, &encort::OPERATOR)) return status;
  return ort::add_domain(options, domain);
}
