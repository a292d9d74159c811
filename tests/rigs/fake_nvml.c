/* A driver's library that says what the test has compiled into it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef INIT
#define INIT 0
#endif
#ifndef CARDS
#define CARDS 0
#endif

typedef struct { unsigned long long total, free, used; } memory_t;

int nvmlInit_v2(void)
{
#ifdef HANGS
    for (;;) pause();
#endif
#ifdef CRASHES
    *(volatile int *)0 = 0;
#endif
    return INIT;
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    *count = CARDS;
    return 0;
}

/* The second card is lost, the third does not tell its memory. */
int nvmlDeviceGetHandleByIndex_v2(unsigned int number, void **device)
{
    *device = (void *)(unsigned long)(number + 1);
    return number == 1 ? 15 : 0;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int length)
{
    return snprintf(name, length, "Fake %d", (int)(unsigned long)device) < 0;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory)
{
    unsigned long number = (unsigned long)device;
    memory->total = (number * 4ULL) << 30;
    return number == 3 ? 3 : 0;
}
