#include <cuda_runtime.h>

extern "C" const char* bk_error_name(int code) { return cudaGetErrorName((cudaError_t)code); }
