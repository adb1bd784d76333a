/* x87: what compilers make of long double, with doubles in memory. */
#include "hashes.h"
#include "programs.h"

/* Bodies as in sse2.float.c, computed in 80 bits and kept in 64. */
uint32_t bodies87(uint32_t rounds) {
  enum { N = 5 };
  static double x[N], y[N], z[N], u[N], v[N], w[N], m[N];
  for (int i = 0; i < N; i++) {
    x[i] = 3.0 * i + 0.25;
    y[i] = 1.5 - 2.0 * i;
    z[i] = 0.125 * i * i;
    u[i] = 0.01 * i;
    v[i] = -0.02 * i + 0.03;
    w[i] = 0.005 * (i - 2);
    m[i] = 1.0 + 0.5 * i;
  }
  for (uint32_t n = rounds * 100; n > 0; n--) {
    for (int i = 0; i < N; i++) {
      for (int j = i + 1; j < N; j++) {
        long double a = (long double)x[i] - x[j], b = (long double)y[i] - y[j];
        long double c = (long double)z[i] - z[j];
        long double square = a * a + b * b + c * c + 0.01L;
        long double pull = 0.001L / (square * __builtin_sqrtl(square));
        u[i] = (double)(u[i] - a * m[j] * pull);
        v[i] = (double)(v[i] - b * m[j] * pull);
        w[i] = (double)(w[i] - c * m[j] * pull);
        u[j] = (double)(u[j] + a * m[i] * pull);
        v[j] = (double)(v[j] + b * m[i] * pull);
        w[j] = (double)(w[j] + c * m[i] * pull);
      }
    }
    for (int i = 0; i < N; i++) {
      x[i] = (double)(x[i] + 0.001L * u[i]);
      y[i] = (double)(y[i] + 0.001L * v[i]);
      z[i] = (double)(z[i] + 0.001L * w[i]);
    }
  }
  return crc32(x, sizeof x) ^ crc32(y, sizeof y) ^ crc32(z, sizeof z);
}

/* The Mandelbrot set: a loop in registers, with comparisons. */
uint32_t fractal87(uint32_t rounds) {
  enum { N = 32, LIMIT = 100 };
  uint32_t sum = 0;
  while (rounds--) {
    for (int row = 0; row < N; row++) {
      for (int column = 0; column < N; column++) {
        const long double cr = 3.0L * column / N - 2, ci = 2.0L * row / N - 1;
        long double r = cr, i = ci;
        uint32_t n = 0;
        for (; n < LIMIT; n++) {
          long double rr = r * r, ii = i * i, ri = r * i;
          if (rr + ii > 4) break;
          r = rr - ii + cr;
          i = ri + ri + ci;
        }
        sum = (sum << 3 | sum >> 29) + n;
      }
    }
  }
  return sum;
}

/* Sums of series: divisions, conversions from and to integers, singles in memory. */
uint32_t series87(uint32_t rounds) {
  static float terms[256];
  int32_t sum = 0;
  while (rounds--) {
    long double total = 0, power = 1;
    for (int n = 1; n <= 256; n++) {
      power = power * (int32_t)(rounds & 7) / n + 1 / (long double)(n * n);
      total += power;
      terms[n - 1] = (float)(total - (int32_t)total);
    }
    for (int n = 0; n < 256; n++) sum = sum * 5 + (int32_t)(terms[n] * 65536.0L);
  }
  return (uint32_t)sum ^ crc32(terms, sizeof terms);
}
