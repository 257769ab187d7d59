#include "capi.h"

#include <dlfcn.h>
#include <stdio.h>

static const OrtApi *api;
static OrtEnv *env;
static OrtMemoryInfo *host;

// TRY leaves a function with the status of a call that failed.
#define TRY(call)                 \
  do {                            \
    OrtStatus *status = (call);   \
    if (status) return status;    \
  } while (0)

static OrtStatus *open_environment(int threads) {
  OrtThreadingOptions *pool;
  TRY(api->CreateThreadingOptions(&pool));
  OrtStatus *status = api->SetGlobalIntraOpNumThreads(pool, threads);
  if (!status) status = api->SetGlobalInterOpNumThreads(pool, 1);
  if (!status) status = api->SetGlobalSpinControl(pool, 0); // threads that wait leave the cores to others
  if (!status) status = api->CreateEnvWithGlobalThreadPools(ORT_LOGGING_LEVEL_FATAL, "foretoken", pool, &env);
  api->ReleaseThreadingOptions(pool);
  if (status) return status;
  return api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &host);
}

char *ft_open(const char *library, int threads) {
  void *handle = dlopen(library, RTLD_LAZY);
  if (!handle) return strdup(dlerror());
  const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(handle, "OrtGetApiBase");
  if (!base) return strdup("it has no OrtGetApiBase");
  api = base()->GetApi(ORT_API_VERSION);
  if (!api) {
    char message[128];
    snprintf(message, sizeof message, "it is of version %.20s, which lacks version %d of the C API", base()->GetVersionString(), ORT_API_VERSION);
    return strdup(message);
  }
  OrtStatus *status = open_environment(threads);
  if (!status) return NULL;
  char *message = strdup(api->GetErrorMessage(status));
  api->ReleaseStatus(status);
  return message;
}

int ft_code(const OrtStatus *s) { return api->GetErrorCode(s); }
const char *ft_message(const OrtStatus *s) { return api->GetErrorMessage(s); }
void ft_release_status(OrtStatus *s) { api->ReleaseStatus(s); }

OrtStatus *ft_container(OrtPrepackedWeightsContainer **out) { return api->CreatePrepackedWeightsContainer(out); }
void ft_release_container(OrtPrepackedWeightsContainer *c) { api->ReleasePrepackedWeightsContainer(c); }

static OrtStatus *set_options(OrtSessionOptions *o, bool deterministic, bool arena) {
  TRY(api->DisablePerSessionThreads(o));
  TRY(api->SetDeterministicCompute(o, deterministic));
  TRY(api->SetSessionLogSeverityLevel(o, ORT_LOGGING_LEVEL_FATAL));
  TRY(arena ? api->EnableCpuMemArena(o) : api->DisableCpuMemArena(o)); // docs/benchmarks.md has the figures for these two
  return api->DisableMemPattern(o);
}

OrtStatus *ft_options(bool deterministic, bool arena, OrtSessionOptions **out) {
  TRY(api->CreateSessionOptions(out));
  OrtStatus *status = set_options(*out, deterministic, arena);
  if (status) api->ReleaseSessionOptions(*out);
  return status;
}

OrtStatus *ft_provider(OrtSessionOptions *o, const char *name) {
  if (strcmp(name, "CUDA") != 0) return api->SessionOptionsAppendExecutionProvider(o, name, NULL, NULL, 0);
  OrtCUDAProviderOptionsV2 *settings;
  TRY(api->CreateCUDAProviderOptions(&settings));
  OrtStatus *status = api->SessionOptionsAppendExecutionProvider_CUDA_V2(o, settings);
  api->ReleaseCUDAProviderOptions(settings);
  return status;
}

OrtStatus *ft_config(OrtSessionOptions *o, const char *key, const char *value) { return api->AddSessionConfigEntry(o, key, value); }
OrtStatus *ft_initializer(OrtSessionOptions *o, const char *name, const OrtValue *v) { return api->AddInitializer(o, name, v); }
void ft_release_options(OrtSessionOptions *o) { api->ReleaseSessionOptions(o); }

OrtStatus *ft_session(const void *model, size_t length, const OrtSessionOptions *o,
                      OrtPrepackedWeightsContainer *container, OrtSession **out) {
  return api->CreateSessionFromArrayWithPrepackedWeightsContainer(env, model, length, o, container, out);
}
void ft_release_session(OrtSession *s) { api->ReleaseSession(s); }

OrtStatus *ft_tensor(void *data, size_t bytes, const int64_t *dims, size_t rank, int type, OrtValue **out) {
  return api->CreateTensorWithDataAsOrtValue(host, data, bytes, dims, rank, type, out);
}

OrtStatus *ft_describe(OrtValue *v, int *type, size_t *rank, int64_t *dims, void **data) {
  int is_tensor = 0;
  *type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  *rank = 0;
  TRY(api->IsTensor(v, &is_tensor));
  if (!is_tensor) return NULL;
  OrtTensorTypeAndShapeInfo *info;
  TRY(api->GetTensorTypeAndShape(v, &info));
  ONNXTensorElementDataType element;
  OrtStatus *status = api->GetTensorElementType(info, &element);
  if (!status) status = api->GetDimensionsCount(info, rank);
  if (!status && *rank <= FT_MAX_RANK) status = api->GetDimensions(info, dims, *rank);
  api->ReleaseTensorTypeAndShapeInfo(info);
  if (status || *rank > FT_MAX_RANK) return status;
  *type = element;
  return api->GetTensorMutableData(v, data);
}
void ft_release_value(OrtValue *v) { api->ReleaseValue(v); }

OrtStatus *ft_run_options(OrtRunOptions **out) { return api->CreateRunOptions(out); }
void ft_terminate(OrtRunOptions *r) { api->ReleaseStatus(api->RunOptionsSetTerminate(r)); }
void ft_release_run_options(OrtRunOptions *r) { api->ReleaseRunOptions(r); }

OrtStatus *ft_run(OrtSession *s, const OrtRunOptions *r, const char *const *input_names, const OrtValue *const *inputs,
                  size_t input_count, const char *const *output_names, size_t output_count, OrtValue **outputs) {
  return api->Run(s, r, input_names, inputs, input_count, output_names, output_count, outputs);
}
