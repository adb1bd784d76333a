/* SSE2: scalar and packed doubles, packed singles, packed integers. */
/* The compiler's own header wants malloc() of a C library, which there is none of. */
#define _MM_MALLOC_H_INCLUDED
#include <emmintrin.h>

#include "hashes.h"
#include "programs.h"

/* Bodies under each other's gravity: scalar doubles, with a square root and a division for each pair. */
uint32_t bodies(uint32_t rounds) {
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
        double a = x[i] - x[j], b = y[i] - y[j], c = z[i] - z[j];
        double square = a * a + b * b + c * c + 0.01;
        double pull = 0.001 / (square * __builtin_sqrt(square));
        u[i] -= a * m[j] * pull;
        v[i] -= b * m[j] * pull;
        w[i] -= c * m[j] * pull;
        u[j] += a * m[i] * pull;
        v[j] += b * m[i] * pull;
        w[j] += c * m[i] * pull;
      }
    }
    for (int i = 0; i < N; i++) {
      x[i] += 0.001 * u[i];
      y[i] += 0.001 * v[i];
      z[i] += 0.001 * w[i];
    }
  }
  return crc32(x, sizeof x) ^ crc32(y, sizeof y) ^ crc32(z, sizeof z);
}

/* Points times a 4 x 4 matrix: packed singles. */
uint32_t transform(uint32_t rounds) {
  enum { N = 1024 };
  static __m128 points[N];
  static __m128 matrix[4];
  for (int i = 0; i < N; i++) points[i] = _mm_setr_ps((float)i, (float)(i * 3 & 255), (float)(-i), 1);
  for (int i = 0; i < 4; i++) {
    matrix[i] = _mm_setr_ps(0.25f * (float)(i - 1), 0.5f, 0.125f * (float)i, 0.0625f);
  }
  const __m128 low = _mm_set1_ps(-1000), high = _mm_set1_ps(1000);
  while (rounds--) {
    for (int i = 0; i < N; i++) {
      __m128 p = points[i];
      __m128 q = _mm_mul_ps(_mm_shuffle_ps(p, p, 0x00), matrix[0]);
      q = _mm_add_ps(q, _mm_mul_ps(_mm_shuffle_ps(p, p, 0x55), matrix[1]));
      q = _mm_add_ps(q, _mm_mul_ps(_mm_shuffle_ps(p, p, 0xaa), matrix[2]));
      q = _mm_add_ps(q, _mm_mul_ps(_mm_shuffle_ps(p, p, 0xff), matrix[3]));
      points[i] = _mm_min_ps(_mm_max_ps(q, low), high);
    }
    points[rounds & (N - 1)] = _mm_set1_ps((float)(rounds & 1023));
  }
  return crc32(points, sizeof points);
}

/* The Mandelbrot set, two points at a time: packed doubles, compared. */
uint32_t fractal(uint32_t rounds) {
  enum { N = 32, LIMIT = 100 };
  const __m128d four = _mm_set1_pd(4);
  uint32_t sum = 0;
  while (rounds--) {
    for (int row = 0; row < N; row++) {
      const __m128d ci = _mm_set1_pd(2.0 * row / N - 1);
      for (int column = 0; column < N; column += 2) {
        const __m128d cr = _mm_setr_pd(3.0 * column / N - 2, 3.0 * (column + 1) / N - 2);
        __m128d r = cr, i = ci;
        int n = 0, inside = 3;
        for (; n < LIMIT && inside; n++) {
          __m128d rr = _mm_mul_pd(r, r), ii = _mm_mul_pd(i, i), ri = _mm_mul_pd(r, i);
          inside &= _mm_movemask_pd(_mm_cmple_pd(_mm_add_pd(rr, ii), four));
          r = _mm_add_pd(_mm_sub_pd(rr, ii), cr);
          i = _mm_add_pd(_mm_add_pd(ri, ri), ci);
          sum += (uint32_t)inside;
        }
        sum = (sum << 3 | sum >> 29) + (uint32_t)n;
      }
    }
  }
  return sum;
}

/* Two pictures of 32-bit pixels blended: packed integers. */
uint32_t blend(uint32_t rounds) {
  enum { N = 1024 };
  static __m128i front[N], back[N];
  uint32_t *f = (uint32_t *)front, *b = (uint32_t *)back;
  for (uint32_t i = 0; i < 4 * N; i++) {
    f[i] = i * 2654435761u;
    b[i] = i * 40503u ^ 0xff00ffu;
  }
  const __m128i zero = _mm_setzero_si128(), whole = _mm_set1_epi16(256);
  while (rounds--) {
    const __m128i alpha = _mm_set1_epi16((short)(rounds & 255)), rest = _mm_sub_epi16(whole, alpha);
    for (int i = 0; i < N; i++) {
      __m128i low = _mm_add_epi16(_mm_mullo_epi16(_mm_unpacklo_epi8(front[i], zero), alpha),
                                  _mm_mullo_epi16(_mm_unpacklo_epi8(back[i], zero), rest));
      __m128i high = _mm_add_epi16(_mm_mullo_epi16(_mm_unpackhi_epi8(front[i], zero), alpha),
                                   _mm_mullo_epi16(_mm_unpackhi_epi8(back[i], zero), rest));
      __m128i mixed = _mm_packus_epi16(_mm_srli_epi16(low, 8), _mm_srli_epi16(high, 8));
      back[i] = _mm_xor_si128(_mm_avg_epu8(mixed, back[i]), _mm_slli_epi32(front[i], 1));
    }
  }
  return crc32(back, sizeof back);
}
