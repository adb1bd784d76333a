/* The command line: words apart by spaces, either `word` or `key=value`. */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H
#include <stdint.h>

/* The command line without the program's name, "" if there is none. Some loaders put the name in front
 * and some do not: a first word with a '/' or a '.' before any '=' is taken for one. */
const char *arguments(void);

/* Whether the word stands on the command line. */
int argument_present(const char *word);

/* The value of key=number (decimal, or hexadecimal after 0x), or otherwise if the key is not there. A
 * value that is not a number ends the guest with a message and exit code 2. */
uint64_t argument_number(const char *key, uint64_t otherwise);

#endif
