/* A libnvidia-ml.so.1 of two GPUs that knows no card: what the file named by FAKE_NVML says happens.
 *
 *   ok       both answer
 *   lost     the second is lost (its temperature says so)
 *   gone     the second is lost (its handle says so)
 *   unloaded nvmlInit_v2: driver not loaded
 *   reset    nvmlDeviceGetCount_v2: reset required
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_LOADED = 9, LOST = 15, RESET = 16 };
struct gpu { unsigned index; };
static struct gpu gpus[2] = {{0}, {1}};
static int ready;

static int says(const char *word) {
    char text[16] = "";
    const char *name = getenv("FAKE_NVML");
    FILE *file = name ? fopen(name, "r") : NULL;
    if (!file) return 0;
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    return n > 0 && strncmp(text, word, strlen(word)) == 0;
}

int nvmlInit_v2(void) { if (says("unloaded")) return NOT_LOADED; ready = 1; return OK; }
int nvmlShutdown(void) { ready = 0; return OK; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!ready) return UNINITIALIZED;
    if (says("reset")) return RESET;
    *count = 2;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **device) {
    if (index == 1 && says("gone")) return LOST;
    *device = &gpus[index];
    return OK;
}

int nvmlDeviceGetName(struct gpu *device, char *name, unsigned bytes) {
    snprintf(name, bytes, "Test GPU %u", device->index);
    return OK;
}

int nvmlDeviceGetUUID(struct gpu *device, char *uuid, unsigned bytes) {
    snprintf(uuid, bytes, "GPU-%08u", device->index);
    return OK;
}

int nvmlDeviceGetTemperature(struct gpu *device, unsigned sensor, unsigned *celsius) {
    if (device->index == 1 && says("lost")) return LOST;
    *celsius = sensor == 0 ? 61 + device->index : 999;
    return OK;
}

int nvmlDeviceGetTemperatureThreshold(struct gpu *device, unsigned which, unsigned *celsius) {
    if (device->index == 1) return NOT_SUPPORTED;
    *celsius = which == 0 ? 98 : which == 1 ? 93 : 999;
    return OK;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct gpu *device, unsigned long long *mask) {
    *mask = device->index == 0 ? 0x41 : 0;
    return OK;
}

int nvmlDeviceGetPowerUsage(struct gpu *device, unsigned *milliwatts) { (void)device; *milliwatts = 70500; return OK; }

int nvmlDeviceGetUtilizationRates(struct gpu *device, struct { unsigned gpu, memory; } *rates) {
    (void)device;
    rates->gpu = 37;
    rates->memory = 5;
    return OK;
}

int nvmlDeviceGetMemoryInfo(struct gpu *device, struct { unsigned long long total, free, used; } *memory) {
    (void)device;
    memory->total = 8ull << 30;
    memory->free = 6ull << 30;
    memory->used = 2ull << 30;
    return OK;
}

int nvmlDeviceGetTotalEccErrors(struct gpu *device, unsigned type, unsigned counter, unsigned long long *count) {
    (void)device;
    *count = type == 1 && counter == 0 ? 3 : 999;
    return OK;
}

int nvmlDeviceGetRemappedRows(struct gpu *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
    (void)device;
    *corrected = 4; *uncorrected = 1; *pending = 1; *failed = 0;
    return OK;
}
