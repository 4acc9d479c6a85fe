/* Charts as inline SVG; see svg.h. Coordinates are in a fixed view box, rounded to a tenth:
 * the page stays small and diffs of two reports stay readable. */
#include "launcher/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 560, HEIGHT = 310, LEFT = 58, RIGHT = 14, TOP = 52, BOTTOM = 44 };

struct range {
    double low, high, step;
};

/* Round bounds and a step of 1, 2 or 5 times a power of ten, about `ticks` of them. */
static struct range nice(double low, double high, int ticks)
{
    struct range r;
    double raw, power, unit;

    if (!(high > low)) {
        double pad = fabs(low) > 0 ? fabs(low) * 0.1 : 1;

        low = low >= 0 && low < pad ? 0 : low - pad;
        high += pad;
    }
    raw = (high - low) / ticks;
    power = pow(10, floor(log10(raw)));
    unit = raw / power;
    r.step = power * (unit <= 1 ? 1 : unit <= 2 ? 2 : unit <= 5 ? 5 : 10);
    r.low = floor(low / r.step + 1e-9) * r.step;
    r.high = ceil(high / r.step - 1e-9) * r.step;
    return r;
}

static double place(const struct range *r, double v, double from, double to)
{
    return from + (v - r->low) / (r->high - r->low) * (to - from);
}

static void begin(struct str *out, int width, int height, const char *title)
{
    str_addf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", width, height);
    str_add_html(out, title);
    str_addf(out, "\"><text class=\"t\" x=\"%d\" y=\"18\">", LEFT);
    str_add_html(out, title);
    str_add(out, "</text>");
}

static void text(struct str *out, double x, double y, const char *anchor, const char *s)
{
    str_addf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    str_add_html(out, s);
    str_add(out, "</text>");
}

static void number(char *buf, size_t n, double v)
{
    double a = fabs(v);

    if (a >= 1e5 || (a > 0 && a < 1e-4))
        snprintf(buf, n, "%.0e", v);
    else
        snprintf(buf, n, "%.5g", v);
}

static double first_tick(const struct range *r)
{
    return ceil(r->low / r->step - 1e-9) * r->step;
}

static void grid_y(struct str *out, const struct range *y)
{
    char buf[32];

    for (double v = first_tick(y); v <= y->high + y->step * 1e-9; v += y->step) {
        double at = place(y, v, HEIGHT - BOTTOM, TOP);

        str_addf(out, "<path class=\"g\" d=\"M%d %.1fH%d\"/>", LEFT, at, WIDTH - RIGHT);
        number(buf, sizeof buf, fabs(v) < y->step * 1e-6 ? 0 : v);
        text(out, LEFT - 6, at + 4, "end", buf);
    }
}

static void grid_x(struct str *out, const struct range *x, const char *label)
{
    char buf[32];

    for (double v = first_tick(x); v <= x->high + x->step * 1e-9; v += x->step) {
        double at = place(x, v, LEFT, WIDTH - RIGHT);

        str_addf(out, "<path class=\"g\" d=\"M%.1f %dV%d\"/>", at, HEIGHT - BOTTOM, TOP);
        number(buf, sizeof buf, fabs(v) < x->step * 1e-6 ? 0 : v);
        text(out, at, HEIGHT - BOTTOM + 16, "middle", buf);
    }
    text(out, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8, "middle", label);
}

static void line(struct str *out, const struct svg_series *s, const struct range *x,
                 const struct range *y)
{
    char move = 'M';

    str_addf(out, "<path class=\"l s%d%s\" d=\"", s->color, s->faint ? " faint" : "");
    for (size_t i = 0; i < s->n; i++) {
        if (!isfinite(s->x[i]) || !isfinite(s->y[i])) {
            move = 'M';
            continue;
        }
        str_addf(out, "%c%.1f %.1f", move, place(x, s->x[i], LEFT, WIDTH - RIGHT),
                 place(y, s->y[i], HEIGHT - BOTTOM, TOP));
        move = 'L';
    }
    str_add(out, "\"/>");
    for (size_t i = 0; s->dots && i < s->n; i++) {
        if (!isfinite(s->x[i]) || !isfinite(s->y[i]))
            continue;
        str_addf(out, "<circle class=\"d s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>",
                 s->color, place(x, s->x[i], LEFT, WIDTH - RIGHT),
                 place(y, s->y[i], HEIGHT - BOTTOM, TOP));
        str_add_html(out, s->name);
        str_addf(out, " %.5g at %.6g</title></circle>", s->y[i], s->x[i]);
    }
}

/* Names of the series, on the line below the title. */
static void legend(struct str *out, const struct svg_series *s, size_t n)
{
    double at = LEFT;

    for (size_t i = 0; i < n; i++) {
        if (s[i].faint)
            continue;
        str_addf(out,
                 "<rect class=\"b s%d\" x=\"%.1f\" y=\"29\" width=\"12\" height=\"8\"/>",
                 s[i].color, at);
        text(out, at + 17, 37, "start", s[i].name);
        at += 5.9 * (double)strlen(s[i].name) + 30;
    }
}

void svg_curves(struct str *out, const char *title, const char *x_label,
                const struct svg_series *series, size_t n)
{
    double lx = INFINITY, hx = -INFINITY, ly = INFINITY, hy = -INFINITY;
    struct range x, y;

    for (size_t s = 0; s < n; s++)
        for (size_t i = 0; i < series[s].n; i++) {
            if (!isfinite(series[s].x[i]) || !isfinite(series[s].y[i]))
                continue;
            lx = fmin(lx, series[s].x[i]);
            hx = fmax(hx, series[s].x[i]);
            ly = fmin(ly, series[s].y[i]);
            hy = fmax(hy, series[s].y[i]);
        }
    if (!(lx <= hx))
        return;
    y = nice(ly, hy, 5);
    x = nice(lx, hx, 6); /* round steps, but the axis ends where the data end */
    x.low = lx;
    x.high = hx > lx ? hx : lx + 1;
    begin(out, WIDTH, HEIGHT, title);
    grid_x(out, &x, x_label);
    grid_y(out, &y);
    for (size_t s = 0; s < n; s++)
        line(out, &series[s], &x, &y);
    legend(out, series, n);
    str_add(out, "</svg>");
}

void svg_reliability(struct str *out, const char *title, const double *accuracy,
                     const double *confidence, const double *count, size_t n)
{
    static const struct range unit = {0, 1, 0.2};
    double most = 1, right = WIDTH - RIGHT, bottom = HEIGHT - BOTTOM;

    begin(out, WIDTH, HEIGHT, title);
    grid_x(out, &unit, "confidence");
    grid_y(out, &unit);
    for (size_t i = 0; i < n; i++)
        most = fmax(most, count[i]);
    for (size_t i = 0; i < n; i++) {
        double l = place(&unit, (double)i / (double)n, LEFT, right) + 1;
        double w = (right - LEFT) / (double)n - 2;
        double top = place(&unit, accuracy[i], bottom, TOP);
        double share = count[i] / most * 40;

        if (!(count[i] > 0))
            continue;
        str_addf(out,
                 "<rect class=\"b s0\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                 "height=\"%.1f\"><title>%.0f rows: confidence %.3f, accuracy "
                 "%.3f</title></rect>",
                 l, top, w, bottom - top, count[i], confidence[i], accuracy[i]);
        str_addf(out,
                 "<rect class=\"h\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                 "height=\"%.1f\"/>",
                 l + w / 4, bottom - share, w / 2, share);
        str_addf(out, "<circle class=\"d s1\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>",
                 place(&unit, confidence[i], LEFT, right), top);
    }
    str_addf(out, "<path class=\"l diagonal\" d=\"M%d %.1fL%.1f %d\"/>", LEFT, bottom,
             right, TOP);
    str_add(out, "</svg>");
}

void svg_confusion(struct str *out, const char *title, const double *count,
                   const char *const *label, size_t K)
{
    double left = 130, top = 92, cell = K ? fmin(64, 420.0 / (double)K) : 64;
    int width = (int)(left + cell * (double)K + 60),
        height = (int)(top + cell * (double)K + 30);

    begin(out, width, height, title);
    for (size_t i = 0; i < K; i++) {
        double sum = 0;

        for (size_t j = 0; j < K; j++)
            sum += count[i * K + j];
        for (size_t j = 0; j < K; j++) {
            double share = sum > 0 ? count[i * K + j] / sum : 0;
            double x = left + cell * (double)j, y = top + cell * (double)i;
            char buf[32];

            str_addf(out,
                     "<rect class=\"c\" fill-opacity=\"%.3f\" x=\"%.1f\" y=\"%.1f\" "
                     "width=\"%.1f\" height=\"%.1f\"><title>",
                     share, x, y, cell - 1, cell - 1);
            str_add_html(out, label[i]);
            str_add(out, " taken for ");
            str_add_html(out, label[j]);
            str_addf(out, ": %.0f (%.1f %%)</title></rect>", count[i * K + j], 100 * share);
            snprintf(buf, sizeof buf, "%.0f", count[i * K + j]);
            str_addf(out,
                     "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s",
                     share > 0.55 ? "inv" : "num", x + cell / 2, y + cell / 2 + 4, buf);
            str_add(out, "</text>");
        }
        text(out, left - 8, top + cell * ((double)i + 0.5) + 4, "end", label[i]);
        str_addf(out, "<text transform=\"translate(%.1f %.1f) rotate(-32)\">",
                 left + cell * ((double)i + 0.4), top - 6);
        str_add_html(out, label[i]);
        str_add(out, "</text>");
    }
    text(out, left + cell * (double)K / 2, top + cell * (double)K + 20, "middle",
         "rows: gold, columns: predicted");
    str_add(out, "</svg>");
}

void svg_bars(struct str *out, const char *title, const char *const *category, size_t n,
              const char *const *series, const double *value, size_t n_series)
{
    struct range y;
    double most = 0, group = (WIDTH - LEFT - RIGHT) / (double)(n ? n : 1);
    double bar = group * 0.8 / (double)(n_series ? n_series : 1);
    struct svg_series names[8] = {{0}};

    for (size_t i = 0; i < n * n_series; i++)
        if (isfinite(value[i]))
            most = fmax(most, value[i]);
    y = nice(0, most, 5);
    begin(out, WIDTH, HEIGHT, title);
    grid_y(out, &y);
    for (size_t i = 0; i < n; i++) {
        for (size_t s = 0; s < n_series; s++) {
            double v = value[s * n + i];
            double top = isfinite(v) ? place(&y, v, HEIGHT - BOTTOM, TOP) : HEIGHT - BOTTOM;
            double x = LEFT + group * ((double)i + 0.1) + bar * (double)s;

            str_addf(out,
                     "<rect class=\"b s%zu\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                     "height=\"%.1f\"><title>",
                     s, x, top, bar - 1, HEIGHT - BOTTOM - top);
            str_add_html(out, series[s]);
            str_addf(out, ": %.5g</title></rect>", v);
        }
        text(out, LEFT + group * ((double)i + 0.5), HEIGHT - BOTTOM + 16, "middle",
             category[i]);
    }
    for (size_t s = 0; s < n_series && s < 8; s++)
        names[s] = (struct svg_series){.name = series[s], .color = (int)s};
    legend(out, names, n_series < 8 ? n_series : 8);
    str_add(out, "</svg>");
}

void svg_stack(struct str *out, const char *title, const char *const *name,
               const double *value, size_t n)
{
    enum { TOP_OF_BAR = 50, BAR = 34, STACK_HEIGHT = 100 };
    struct svg_series names[8] = {{0}};
    double total = 0, x = LEFT;
    size_t named = 0;

    for (size_t i = 0; i < n; i++)
        total += isfinite(value[i]) && value[i] > 0 ? value[i] : 0;
    begin(out, WIDTH, STACK_HEIGHT, title);
    for (size_t i = 0; i < n && total > 0; i++) {
        double share = isfinite(value[i]) && value[i] > 0 ? value[i] / total : 0;
        double width = share * (WIDTH - LEFT - RIGHT);
        char label[32];

        if (share <= 0)
            continue;
        str_addf(out,
                 "<rect class=\"b s%zu\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" "
                 "height=\"%d\"><title>",
                 i, x, TOP_OF_BAR, width, BAR);
        str_add_html(out, name[i]);
        str_addf(out, ": %.1f %%</title></rect>", 100 * share);
        snprintf(label, sizeof label, "%.0f %%", 100 * share);
        if (width > 34)
            text(out, x + width / 2, TOP_OF_BAR + BAR + 14, "middle", label);
        x += width;
        if (named < 8)
            names[named++] = (struct svg_series){.name = name[i], .color = (int)i};
    }
    legend(out, names, named);
    str_add(out, "</svg>");
}
