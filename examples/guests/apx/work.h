/* A small program in two ways: in C, which the compiler translates without APX (plain.64.c), and written
 * for APX by hand (apx.S). The same functions, the same results. */
#ifndef WORK_H
#define WORK_H
#include <stdint.h>

/* A node of a list and of a tree. */
struct node {
  struct node *next;  /* in the list; in the tree the left one */
  struct node *other; /* may be null; in the tree the right one */
  uint64_t value;
};

struct work {
  const char *name;
  /* Rounds of the G functions of BLAKE2b on sixteen words, with the message in plain order. */
  void (*mix)(uint64_t *state, const uint64_t *message, uint64_t rounds);
  /* How many characters of a text are of identifiers, and 2^32 times how many identifiers there are. */
  uint64_t (*words)(const char *text, uint64_t length);
  /* Sum of the values of a list, and of those that its nodes point to. */
  uint64_t (*list)(const struct node *node);
  /* Sum of the medians of each three neighbours. */
  uint64_t (*medians)(const int64_t *numbers, uint64_t count);
  /* A sum over a tree in which depths count, recursively. */
  uint64_t (*tree)(const struct node *node, uint64_t depth);
};

extern const struct work plain, apx;

#endif
