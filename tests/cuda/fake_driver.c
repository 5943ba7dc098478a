/* A stand-in for NVIDIA's driver library, for machines without a card.

   What calls it is the real host side: numba-cuda, cuda-core, cuda-bindings. Device memory is
   ordinary memory. Work in streams is queued and done when somebody waits for it, or at random
   moments before (FAKE_CUDA_SEED), so that a missing wait shows. Of kernels it knows by name only
   `bent` of activation.py, as relu; others write nothing.

   FAKE_CUDA_VERSION, FAKE_CUDA_CC, FAKE_CUDA_CARDS, FAKE_CUDA_FREE   what it says of itself
   FAKE_CUDA_FAIL=name:code[:after]   a function fails with a code from its after-th call on
   FAKE_CUDA_STICKY=1                 after a failure every function fails
   FAKE_CUDA_LOG=file                 a line for each call */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef uint64_t Pointer;
typedef struct Stream Stream;
enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_SUPPORTED = 801, NOT_FOUND = 500 };

/* Faults and the log */

static long number(const char *name, long otherwise) {
  const char *given = getenv(name);
  return given && *given ? atol(given) : otherwise;
}

static void note(const char *what) {
  const char *file = getenv("FAKE_CUDA_LOG");
  if (!file || !*file) return;
  FILE *out = fopen(file, "a");
  fprintf(out, "%s\n", what);
  fclose(out);
}

static void progress(void);
static int lost;

static Result entered(const char *name) {
  static char of[64];
  static long calls;
  note(name);
  progress();
  if (lost) return lost;
  const char *plan = getenv("FAKE_CUDA_FAIL");
  if (!plan || !*plan) return 0;
  long code = 0, after = 0;
  if (sscanf(plan, "%63[^:]:%ld:%ld", of, &code, &after) < 2 || strcmp(of, name)) return 0;
  if (calls++ < after) return 0;
  if (number("FAKE_CUDA_STICKY", 0)) lost = code;
  return (Result)code;
}
#define ENTER                              \
  do {                                     \
    Result bad = entered(__func__);        \
    if (bad) return bad;                   \
  } while (0)

/* Streams: queues of copies, kernels, marks and waits */

typedef enum { COPY, KERNEL, RECORD, WAIT } Kind;
typedef struct { long marked, reached; float at; } Event;
typedef struct { char name[256]; } Kernel;
typedef struct {
  Kind kind;
  void *to; const void *from; size_t size;        /* COPY */
  Kernel *kernel; unsigned grid[3], block[3]; void *arena, *params, *ints; int at; /* KERNEL */
  Event *event; long mark;                         /* RECORD, WAIT */
} Op;
typedef struct { Op *ops; size_t count, room; } List;
struct Stream { List queue; size_t done; List *capture; Stream *next; };
static Stream legacy;
static Stream *streams = &legacy;
static float now;

static void push(List *list, Op op) {
  if (list->count == list->room) {
    list->room = list->room ? 2 * list->room : 16;
    list->ops = realloc(list->ops, list->room * sizeof(Op));
  }
  list->ops[list->count++] = op;
}

static Stream *stream_of(void *handle) { return handle ? handle : &legacy; }

static void bent(const Op *op) {
  const int *d = (const int *)op->ints + op->at;
  float *arena = op->arena;
  /* source, its batch stride, target, its batch stride, elements of a sample */
  for (unsigned n = 0; n < op->grid[1]; n++)
    for (int i = 0; i < d[4]; i++) {
      float value = arena[d[0] + n * d[1] + i];
      arena[d[2] + n * d[3] + i] = value < 0 ? 0 : value;
    }
}

static int step(Stream *stream);

static void reach(Event *event, long mark) {
  for (Stream *each = streams; each && event->reached < mark; each = each->next)
    for (size_t i = each->done; i < each->queue.count; i++)
      if (each->queue.ops[i].kind == RECORD && each->queue.ops[i].event == event
          && each->queue.ops[i].mark >= mark) {
        while (event->reached < mark) step(each);
        return;
      }
}

static int step(Stream *stream) {
  if (stream->done == stream->queue.count) return 0;
  Op op = stream->queue.ops[stream->done];
  if (op.kind == WAIT) reach(op.event, op.mark);
  stream->done++;
  now += 0.001f;
  if (op.kind == COPY) memcpy(op.to, op.from, op.size);
  if (op.kind == RECORD) { op.event->reached = op.mark; op.event->at = now; }
  if (op.kind == KERNEL && strstr(op.kernel->name, "4bent")) bent(&op);
  return 1;
}

static void drain(Stream *stream) { while (step(stream)) {} }

static void progress(void) {
  static int begun;
  long seed = number("FAKE_CUDA_SEED", 0);
  if (!seed) return;
  if (!begun) { srandom((unsigned)seed); begun = 1; }
  for (Stream *each = streams; each; each = each->next)
    if (random() % 2) step(each);
}

static Result put(Stream *stream, Op op) {
  if (stream->capture) push(stream->capture, op);
  else push(&stream->queue, op);
  return 0;
}

/* The driver and its cards */

static long cards(void) { return number("FAKE_CUDA_CARDS", 1); }
static long capability(void) { return number("FAKE_CUDA_CC", 90); }

Result cuInit(unsigned flags) { ENTER; return cards() ? 0 : 100; }
Result cuDriverGetVersion(int *out) { ENTER; *out = (int)number("FAKE_CUDA_VERSION", 13000); return 0; }
Result cuDeviceGetCount(int *out) { ENTER; *out = (int)cards(); return 0; }
Result cuDeviceGet(int *out, int ordinal) { ENTER; *out = ordinal; return 0; }
Result cuDeviceGetName(char *out, int size, int device) { ENTER; snprintf(out, size, "Fake card"); return 0; }
Result cuDeviceGetUuid(char *out, int device) { ENTER; memset(out, device + 1, 16); return 0; }
Result cuDeviceTotalMem(size_t *out, int device) { ENTER; *out = 16UL << 30; return 0; }
Result cuDeviceGetAttribute(int *out, int attribute, int device) {
  ENTER;
  *out = attribute == 75 ? (int)capability() / 10 : attribute == 76 ? (int)capability() % 10
       : attribute == 16 ? 132 : attribute == 1 ? 1024 : 1;
  return 0;
}

/* Contexts: one */

static void *current;
static int context;
Result cuDevicePrimaryCtxRetain(void **out, int device) { ENTER; *out = &context; return 0; }
Result cuDevicePrimaryCtxRelease(int device) { ENTER; return 0; }
Result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { ENTER; *flags = 0; *active = 1; return 0; }
Result cuCtxGetCurrent(void **out) { ENTER; *out = current; return 0; }
Result cuCtxSetCurrent(void *to) { ENTER; current = to; return 0; }
Result cuCtxPushCurrent(void *to) { ENTER; current = to; return 0; }
Result cuCtxPopCurrent(void **out) { ENTER; *out = current; current = NULL; return 0; }
Result cuCtxGetDevice(int *out) { ENTER; *out = 0; return 0; }
Result cuCtxGetId(void *of, unsigned long long *out) { ENTER; *out = 1; return 0; }
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) { ENTER; *least = 0; *greatest = -5; return 0; }
Result cuCtxSynchronize(void) {
  ENTER;
  for (Stream *each = streams; each; each = each->next) drain(each);
  return 0;
}

/* Memory */

static size_t taken;
Result cuMemAlloc(Pointer *out, size_t size) {
  ENTER;
  if (taken + size > (size_t)number("FAKE_CUDA_FREE", 8L << 30)) return OUT_OF_MEMORY;
  *out = (Pointer)malloc(size);
  taken += malloc_usable_size((void *)*out);
  memset((void *)*out, 0xff, size);
  return 0;
}
Result cuMemFree(Pointer at) {
  ENTER;
  taken -= malloc_usable_size((void *)at);
  free((void *)at);
  return 0;
}
Result cuMemHostAlloc(void **out, size_t size, unsigned flags) { ENTER; *out = malloc(size); memset(*out, 0xff, size); return 0; }
Result cuMemFreeHost(void *at) { ENTER; free(at); return 0; }
Result cuMemGetInfo(size_t *out, size_t *total) {
  ENTER;
  *total = 16UL << 30;
  *out = (size_t)number("FAKE_CUDA_FREE", 8L << 30) - taken;
  return 0;
}

static Result copy(void *to, const void *from, size_t size, void *handle) {
  Op op = {.kind = COPY, .to = to, .from = from, .size = size};
  return put(stream_of(handle), op);
}
Result cuMemcpyHtoD(Pointer to, const void *from, size_t size) { ENTER; memcpy((void *)to, from, size); return 0; }
Result cuMemcpyDtoH(void *to, Pointer from, size_t size) { ENTER; drain(&legacy); memcpy(to, (void *)from, size); return 0; }
Result cuMemcpyDtoD(Pointer to, Pointer from, size_t size) { ENTER; drain(&legacy); memcpy((void *)to, (void *)from, size); return 0; }
Result cuMemcpyHtoDAsync(Pointer to, const void *from, size_t size, void *s) { ENTER; return copy((void *)to, from, size, s); }
Result cuMemcpyDtoHAsync(void *to, Pointer from, size_t size, void *s) { ENTER; return copy(to, (void *)from, size, s); }
Result cuMemcpyDtoDAsync(Pointer to, Pointer from, size_t size, void *s) { ENTER; return copy((void *)to, (void *)from, size, s); }

/* Streams and events */

static Stream *fresh(void) {
  Stream *made = calloc(1, sizeof(Stream));
  made->next = streams;
  streams = made;
  return made;
}
Result cuStreamCreate(void **out, unsigned flags) { ENTER; *out = fresh(); return 0; }
Result cuStreamCreateWithPriority(void **out, unsigned flags, int priority) { ENTER; *out = fresh(); return 0; }
Result cuStreamDestroy(void *handle) { ENTER; drain(stream_of(handle)); return 0; }
Result cuStreamSynchronize(void *handle) { ENTER; drain(stream_of(handle)); return 0; }
Result cuStreamGetFlags(void *handle, unsigned *out) { ENTER; *out = 1; return 0; }
Result cuStreamGetPriority(void *handle, int *out) { ENTER; *out = 0; return 0; }
Result cuStreamGetCtx(void *handle, void **out) { ENTER; *out = &context; return 0; }
Result cuEventCreate(void **out, unsigned flags) { ENTER; *out = calloc(1, sizeof(Event)); return 0; }
Result cuEventDestroy(void *event) { ENTER; return 0; }
Result cuEventRecord(Event *event, void *handle) {
  ENTER;
  Op op = {.kind = RECORD, .event = event, .mark = ++event->marked};
  return put(stream_of(handle), op);
}
Result cuStreamWaitEvent(void *handle, Event *event, unsigned flags) {
  ENTER;
  Op op = {.kind = WAIT, .event = event, .mark = event->marked};
  return put(stream_of(handle), op);
}
Result cuEventSynchronize(Event *event) { ENTER; reach(event, event->marked); return 0; }
Result cuEventQuery(Event *event) { ENTER; return event->reached == event->marked ? 0 : 600; }
Result cuEventElapsedTime(float *out, Event *one, Event *two) {
  ENTER;
  if (one->reached != one->marked || two->reached != two->marked) return 600;
  *out = two->at - one->at;
  return 0;
}

/* Kernels */

Result cuLibraryLoadData(void **out, const void *code, void *o, void *v, unsigned n, void *p, void *q, unsigned m) { ENTER; *out = calloc(1, 8); return 0; }
Result cuLibraryUnload(void *library) { ENTER; return 0; }
Result cuLibraryGetKernel(void **out, void *library, const char *name) {
  ENTER;
  Kernel *made = calloc(1, sizeof(Kernel));
  snprintf(made->name, sizeof made->name, "%s", name);
  *out = made;
  return 0;
}
Result cuKernelGetLibrary(void **out, void *kernel) { ENTER; *out = kernel; return 0; }
Result cuKernelGetFunction(void **out, void *kernel) { ENTER; *out = kernel; return 0; }
Result cuKernelGetAttribute(int *out, int attribute, void *kernel, int device) { ENTER; *out = attribute ? 0 : 1024; return 0; }

typedef struct { unsigned grid[3], block[3], shared; void *stream, *attributes; unsigned count; } Launch;
static Result launched(const unsigned *grid, const unsigned *block, void *handle, Kernel *kernel, void **params) {
  /* An array of one axis is seven parameters, its pointer the fifth; the last is a number. */
  Op op = {.kind = KERNEL, .kernel = kernel};
  memcpy(op.grid, grid, sizeof op.grid);
  memcpy(op.block, block, sizeof op.block);
  op.arena = *(void **)params[4];
  op.params = *(void **)params[11];
  op.ints = *(void **)params[18];
  op.at = *(int *)params[21];
  if (*(long *)params[3] != 4 || *(long *)params[6] != 4) return INVALID_VALUE;
  return put(stream_of(handle), op);
}
Result cuLaunchKernelEx(const Launch *given, Kernel *kernel, void **params, void **extra) {
  ENTER;
  return launched(given->grid, given->block, given->stream, kernel, params);
}
Result cuLaunchKernel(Kernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *handle, void **params, void **extra) {
  ENTER;
  unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  return launched(grid, block, handle, kernel, params);
}

/* Graphs */

Result cuThreadExchangeStreamCaptureMode(int *mode) { ENTER; return 0; }
Result cuStreamBeginCapture(void *handle, int mode) { ENTER; stream_of(handle)->capture = calloc(1, sizeof(List)); return 0; }
Result cuStreamEndCapture(void *handle, void **out) {
  ENTER;
  *out = stream_of(handle)->capture;
  stream_of(handle)->capture = NULL;
  return *out ? 0 : 901;
}
Result cuStreamIsCapturing(void *handle, int *out) { ENTER; *out = stream_of(handle)->capture != NULL; return 0; }
Result cuStreamGetCaptureInfo(void *handle, int *out, uint64_t *id, void **graph, const void ***deps, const void **edges, size_t *count) {
  ENTER;
  List *capture = stream_of(handle)->capture;
  *out = capture != NULL;
  if (id) *id = 1;
  if (graph) *graph = capture;
  if (deps) *deps = NULL;
  if (edges) *edges = NULL;
  if (count) *count = 0;
  return 0;
}
Result cuGraphInstantiateWithParams(void **out, void *graph, void *params) {
  ENTER;
  *out = graph;
  memset((char *)params + 24, 0, 4); /* result_out: success */
  return 0;
}
Result cuGraphInstantiate(void **out, void *graph, unsigned long long flags) { ENTER; *out = graph; return 0; }
Result cuGraphInstantiateWithFlags(void **out, void *graph, unsigned long long flags) { ENTER; *out = graph; return 0; }
Result cuGraphUpload(void *graph, void *handle) { ENTER; return 0; }
Result cuGraphLaunch(List *graph, void *handle) {
  ENTER;
  for (size_t i = 0; i < graph->count; i++) put(stream_of(handle), graph->ops[i]);
  return 0;
}
Result cuGraphDestroy(void *graph) { ENTER; return 0; }
Result cuGraphExecDestroy(void *graph) { ENTER; return 0; }
Result cuUserObjectCreate(void **out, void *p, void *d, unsigned c, unsigned f) { ENTER; *out = p; return 0; }
Result cuGraphRetainUserObject(void *g, void *o, unsigned c, unsigned f) { ENTER; return 0; }
Result cuGraphGetId(void *g, unsigned *out) { ENTER; *out = 1; return 0; }
Result cuGraphReleaseUserObject(void *g, void *o, unsigned c) { ENTER; return 0; }

/* How its functions are found */

Result cuGetErrorName(Result code, const char **out) {
  static char said[64];
  snprintf(said, sizeof said, "%s",
           code == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS"
           : code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 222 ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
           : code == 801 ? "CUDA_ERROR_NOT_SUPPORTED" : "CUDA_ERROR_UNKNOWN");
  *out = said;
  return 0;
}
Result cuGetErrorString(Result code, const char **out) { *out = "as the fake driver was told"; return 0; }

static Result absent(void) { note("absent"); return NOT_SUPPORTED; }

Result cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *status) {
  static void *self;
  if (!self) {
    Dl_info here;
    dladdr((void *)cuInit, &here);
    self = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  }
  *out = dlsym(self, name);
  if (!*out) {
    char what[128];
    snprintf(what, sizeof what, "lacks %s", name);
    note(what);
    *out = (void *)absent;
  }
  if (status) *status = 0;
  return 0;
}
Result cuGetProcAddress(const char *name, void **out, int version, uint64_t flags, int *status) {
  return cuGetProcAddress_v2(name, out, version, flags, status);
}
