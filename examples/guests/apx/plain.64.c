#include "work.h"

static inline uint64_t rotate(uint64_t x, unsigned n) { return x >> n | x << (64 - n); }

#define G(a, b, c, d, x, y)        \
  do {                             \
    a += b + (x);                  \
    d = rotate(d ^ a, 32);         \
    c += d;                        \
    b = rotate(b ^ c, 24);         \
    a += b + (y);                  \
    d = rotate(d ^ a, 16);         \
    c += d;                        \
    b = rotate(b ^ c, 63);         \
  } while (0)

static void mix(uint64_t *state, const uint64_t *m, uint64_t rounds) {
  uint64_t v0 = state[0], v1 = state[1], v2 = state[2], v3 = state[3];
  uint64_t v4 = state[4], v5 = state[5], v6 = state[6], v7 = state[7];
  uint64_t v8 = state[8], v9 = state[9], v10 = state[10], v11 = state[11];
  uint64_t v12 = state[12], v13 = state[13], v14 = state[14], v15 = state[15];
  do {
    G(v0, v4, v8, v12, m[0], m[1]);
    G(v1, v5, v9, v13, m[2], m[3]);
    G(v2, v6, v10, v14, m[4], m[5]);
    G(v3, v7, v11, v15, m[6], m[7]);
    G(v0, v5, v10, v15, m[8], m[9]);
    G(v1, v6, v11, v12, m[10], m[11]);
    G(v2, v7, v8, v13, m[12], m[13]);
    G(v3, v4, v9, v14, m[14], m[15]);
  } while (--rounds);
  state[0] = v0, state[1] = v1, state[2] = v2, state[3] = v3;
  state[4] = v4, state[5] = v5, state[6] = v6, state[7] = v7;
  state[8] = v8, state[9] = v9, state[10] = v10, state[11] = v11;
  state[12] = v12, state[13] = v13, state[14] = v14, state[15] = v15;
}

static uint64_t words(const char *text, uint64_t length) {
  uint64_t characters = 0, identifiers = 0;
  int before = 0;
  do {
    unsigned char c = (unsigned char)*text++;
    int inside = (c >= 'a' && c <= 'z') || c == '_' || (c >= '0' && c <= '9');
    characters += (uint64_t)inside;
    identifiers += inside && !before;
    before = inside;
  } while (--length);
  return identifiers << 32 | characters;
}

static uint64_t list(const struct node *node) {
  uint64_t sum = 0;
  do {
    sum += node->value;
    if (node->other) sum += node->other->value;
    node = node->next;
  } while (node);
  return sum;
}

static uint64_t medians(const int64_t *numbers, uint64_t count) {
  uint64_t sum = 0;
  int64_t a = numbers[0], b = numbers[1];
  do {
    int64_t c = numbers[2];
    int64_t low = a < b ? a : b, high = a < b ? b : a;
    int64_t x = high < c ? high : c;
    sum += (uint64_t)(low < x ? x : low);
    a = b;
    b = c;
    numbers++;
  } while (--count);
  return sum;
}

static uint64_t tree(const struct node *node, uint64_t depth) {
  if (!node) return depth;
  uint64_t left = tree(node->next, depth + 1);
  uint64_t right = tree(node->other, depth + 1);
  return (left + 2 * right + node->value) ^ depth;
}

const struct work plain = {"plain", mix, words, list, medians, tree};
