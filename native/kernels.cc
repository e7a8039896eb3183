// Plain loops, standing in until the vector kernels land.
#include "dispatch.h"
#include <cstring>
#include <vector>
namespace sepconv {
namespace {
template <class T> struct Impl {
  static int64_t xi(const Geometry& g, int64_t n, int64_t h, int64_t w, int64_t c) {
    return g.channels_first ? ((n * g.c + c) * g.h + h) * g.w + w : ((n * g.h + h) * g.w + w) * g.c + c;
  }
  static int64_t yi(const Geometry& g, int64_t F, int64_t n, int64_t h, int64_t w, int64_t f) {
    return g.channels_first ? ((n * F + f) * g.ho + h) * g.wo + w : ((n * g.ho + h) * g.wo + w) * F + f;
  }
  template <class Fn> static void each(const Geometry& g, Fn fn) {
    for (int64_t n = 0; n < g.n; ++n) for (int64_t oh = 0; oh < g.ho; ++oh) for (int64_t ow = 0; ow < g.wo; ++ow)
      for (int64_t i = 0; i < g.kh; ++i) { int64_t h = oh * g.sh + i * g.dh - g.pt; if (h < 0 || h >= g.h) continue;
        for (int64_t j = 0; j < g.kw; ++j) { int64_t w = ow * g.sw + j * g.dw - g.pl; if (w < 0 || w >= g.w) continue;
          for (int64_t c = 0; c < g.c; ++c) for (int64_t m = 0; m < g.m; ++m)
            fn(xi(g, n, h, w, c), ((i * g.kw + j) * g.c + c) * g.m + m, yi(g, g.c * g.m, n, oh, ow, c * g.m + m)); } }
  }
  static T act(T v, Activation a) { if (a != Activation::none && v < 0) v = 0; if (a == Activation::relu6 && v > 6) v = 6; return v; }
  static void finish(T* y, const T* b, int64_t N, int64_t P, int64_t F, bool first, Activation a) {
    for (int64_t n = 0; n < N; ++n) for (int64_t p = 0; p < P; ++p) for (int64_t f = 0; f < F; ++f) {
      T& v = y[first ? (n * F + f) * P + p : (n * P + p) * F + f]; v = act(v + (b ? b[f] : 0), a); }
  }
  static void pw(const Pointwise& p, const T* x, const T* k, const T* b, Activation a, T* y) {
    auto X = [&](int64_t n, int64_t q, int64_t c) { return p.channels_first ? (n * p.channels + c) * p.pixels + q : (n * p.pixels + q) * p.channels + c; };
    for (int64_t n = 0; n < p.images; ++n) for (int64_t q = 0; q < p.pixels; ++q) for (int64_t f = 0; f < p.filters; ++f) {
      T s = 0; for (int64_t c = 0; c < p.channels; ++c) s += x[X(n, q, c)] * k[c * p.filters + f];
      y[p.channels_first ? (n * p.filters + f) * p.pixels + q : (n * p.pixels + q) * p.filters + f] = act(s + (b ? b[f] : 0), a); }
  }
  static void pwb(const Pointwise& p, const T* x, const T* k, const T* dy, T* dx, T* dk, T* db) {
    auto X = [&](int64_t n, int64_t q, int64_t c) { return p.channels_first ? (n * p.channels + c) * p.pixels + q : (n * p.pixels + q) * p.channels + c; };
    if (dx) memset(dx, 0, sizeof(T) * p.images * p.pixels * p.channels);
    if (dk) memset(dk, 0, sizeof(T) * p.channels * p.filters);
    if (db) memset(db, 0, sizeof(T) * p.filters);
    for (int64_t n = 0; n < p.images; ++n) for (int64_t q = 0; q < p.pixels; ++q) for (int64_t f = 0; f < p.filters; ++f) {
      T d = dy[p.channels_first ? (n * p.filters + f) * p.pixels + q : (n * p.pixels + q) * p.filters + f];
      if (db) db[f] += d;
      for (int64_t c = 0; c < p.channels; ++c) { if (dx) dx[X(n, q, c)] += d * k[c * p.filters + f]; if (dk) dk[c * p.filters + f] += d * x[X(n, q, c)]; } }
  }
  static void fwd(const Geometry& g, const Forward& a) {
    int64_t CM = g.c * g.m, P = g.ho * g.wo;
    std::vector<T> t(g.n * P * CM, T(0));
    auto x = (const T*)a.x; auto k = (const T*)a.depthwise_kernel;
    each(g, [&](int64_t X, int64_t K, int64_t Y) { t[Y] += x[X] * k[K]; });
    if (!a.pointwise_kernel) { memcpy(a.y, t.data(), t.size() * sizeof(T)); finish((T*)a.y, (const T*)a.bias, g.n, P, CM, g.channels_first, a.activation); return; }
    pw({g.n, P, CM, a.filters, g.channels_first}, t.data(), (const T*)a.pointwise_kernel, (const T*)a.bias, a.activation, (T*)a.y);
  }
  static void bwd(const Geometry& g, const Backward& a) {
    int64_t CM = g.c * g.m, P = g.ho * g.wo;
    auto x = (const T*)a.x; auto k = (const T*)a.depthwise_kernel; auto dy = (const T*)a.dy;
    std::vector<T> gd;
    if (a.separable) {
      std::vector<T> t(g.n * P * CM, T(0)); gd.resize(t.size());
      if (a.dpointwise) each(g, [&](int64_t X, int64_t K, int64_t Y) { t[Y] += x[X] * k[K]; });
      pwb({g.n, P, CM, a.filters, g.channels_first}, t.data(), (const T*)a.pointwise_kernel, dy, (a.dx || a.ddepthwise) ? gd.data() : nullptr, (T*)a.dpointwise, (T*)a.dbias);
      dy = gd.data();
    } else if (a.dbias) pwb({g.n, P, 1, CM, g.channels_first}, nullptr, nullptr, dy, nullptr, nullptr, (T*)a.dbias);
    if (a.dx) { memset(a.dx, 0, sizeof(T) * g.n * g.h * g.w * g.c); auto dx = (T*)a.dx; each(g, [&](int64_t X, int64_t K, int64_t Y) { dx[X] += dy[Y] * k[K]; }); }
    if (a.ddepthwise) { memset(a.ddepthwise, 0, sizeof(T) * g.kh * g.kw * CM); auto dk = (T*)a.ddepthwise; each(g, [&](int64_t X, int64_t K, int64_t Y) { dk[K] += dy[Y] * x[X]; }); }
  }
};
}
void forward(DType t, const Geometry& g, const Forward& a, Runner&) { t == DType::f32 ? Impl<float>::fwd(g, a) : Impl<double>::fwd(g, a); }
void backward(DType t, const Geometry& g, const Backward& a, Runner&) { t == DType::f32 ? Impl<float>::bwd(g, a) : Impl<double>::bwd(g, a); }
void pointwise_forward(DType t, const Pointwise& p, const void* x, const void* k, const void* b, Activation a, void* y, Runner&) {
  t == DType::f32 ? Impl<float>::pw(p, (const float*)x, (const float*)k, (const float*)b, a, (float*)y) : Impl<double>::pw(p, (const double*)x, (const double*)k, (const double*)b, a, (double*)y); }
void pointwise_backward(DType t, const Pointwise& p, const void* x, const void* k, const void* dy, void* dx, void* dk, void* db, Runner&) {
  t == DType::f32 ? Impl<float>::pwb(p, (const float*)x, (const float*)k, (const float*)dy, (float*)dx, (float*)dk, (float*)db) : Impl<double>::pwb(p, (const double*)x, (const double*)k, (const double*)dy, (double*)dx, (double*)dk, (double*)db); }
}
