/* The few functions of the C library that guests and the compiler itself call. */
#ifndef STRING_H
#define STRING_H
#include <stddef.h>

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

#endif
