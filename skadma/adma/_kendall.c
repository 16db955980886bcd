/* Counts for Kendall's tau, one row after another.
 *
 * Optional: kendall.py uses this on CPU where a compiler was at hand at installation,
 * and torch otherwise; both count the same integers. A row of K takes two stable sorts,
 * which put it in order of b and number it in order of a, then one pass in which a set
 * of bits tells how many of the elements before have a higher number.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DIGIT_BITS 11
#define N_BUCKETS (1 << DIGIT_BITS)
#define WORD_BITS 64

/* Bit counting in one instruction where the processor has it; chosen at run time. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#if defined(__GNUC__)
#define POPCOUNT(x) ((uint32_t)__builtin_popcountll(x))
#else
static uint32_t POPCOUNT(uint64_t x)
{
    x -= (x >> 1) & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (uint32_t)((x * 0x0101010101010101u) >> 56);
}
#endif

enum { DISCORDANT, TIED_A, TIED_B, TIED_BOTH, N_COUNTS };

typedef struct {
    double *values[2];  /* a row of a and of b, where they come in single precision */
    uint64_t *key;      /* of each element, ordered as its value */
    uint64_t *set;      /* bits: which numbers have been seen */
    uint32_t *order;    /* elements, sorted */
    uint32_t *other;    /* the sort's second buffer */
    uint32_t *interval; /* of each element: which of equal parts of the range */
    uint32_t *run;      /* where in the order of a each element's run of equals starts */
    uint32_t *taken;    /* of each such run, how many numbers are given away */
    uint32_t *below;    /* bits set in the words before each word */
    uint32_t bucket[3][N_BUCKETS];
} Scratch;

/* Fill the keys; return whether there is a NaN. */
static int fill_keys(Scratch *s, const double *values, Py_ssize_t n)
{
    int has_nan = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        double value = values[i] + 0.0; /* -0 becomes 0 */
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        has_nan |= value != value;
        s->key[i] = bits ^ ((0 - (bits >> 63)) | (uint64_t)1 << 63);
    }
    return has_nan;
}

static void swap_buffers(Scratch *s)
{
    uint32_t *order = s->order;
    s->order = s->other;
    s->other = order;
}

/* Sort the order, stably, by three digits of the keys from bit `shift` on. */
static void sort_by_digits(Scratch *s, Py_ssize_t n, int shift)
{
    memset(s->bucket, 0, sizeof s->bucket);
    for (Py_ssize_t i = 0; i < n; i++) {
        uint64_t bits = s->key[i] >> shift;
        for (int digit = 0; digit < 3; digit++, bits >>= DIGIT_BITS)
            s->bucket[digit][bits & (N_BUCKETS - 1)]++;
    }
    for (int digit = 0; digit < 3; digit++) {
        uint32_t *bucket = s->bucket[digit], start = 0;
        int lowest = shift + digit * DIGIT_BITS;
        if (bucket[(s->key[0] >> lowest) & (N_BUCKETS - 1)] == n)
            continue; /* all have the same digit */
        for (int b = 0; b < N_BUCKETS; b++) {
            uint32_t size = bucket[b];
            bucket[b] = start;
            start += size;
        }
        for (Py_ssize_t i = 0; i < n; i++) {
            uint32_t element = s->order[i];
            uint64_t b = (s->key[element] >> lowest) & (N_BUCKETS - 1);
            s->other[bucket[b]++] = element;
        }
        swap_buffers(s);
    }
}

/* Move the elements at most `limit` places until their keys are in order, stably;
 * return whether that was enough. */
static int insertion_sort(Scratch *s, Py_ssize_t n, Py_ssize_t limit)
{
    uint32_t *order = s->order;
    for (Py_ssize_t i = 1; i < n; i++) {
        uint32_t element = order[i];
        uint64_t key = s->key[element];
        Py_ssize_t j = i;
        for (; j > 0 && s->key[order[j - 1]] > key; j--)
            order[j] = order[j - 1];
        order[j] = element;
        limit -= i - j;
        if (limit < 0)
            return 0;
    }
    return 1;
}

/* Least and greatest of n values: of four series, which do not wait for each other. */
static void find_range(const double *values, Py_ssize_t n, double *low, double *high)
{
    double lows[4], highs[4];
    for (int j = 0; j < 4; j++)
        lows[j] = highs[j] = values[0];
    for (Py_ssize_t i = 0; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++) {
            lows[j] = values[i + j] < lows[j] ? values[i + j] : lows[j];
            highs[j] = values[i + j] > highs[j] ? values[i + j] : highs[j];
        }
    for (Py_ssize_t i = n - n % 4; i < n; i++) {
        lows[0] = values[i] < lows[0] ? values[i] : lows[0];
        highs[0] = values[i] > highs[0] ? values[i] : highs[0];
    }
    *low = lows[0];
    *high = highs[0];
    for (int j = 1; j < 4; j++) {
        *low = lows[j] < *low ? lows[j] : *low;
        *high = highs[j] > *high ? highs[j] : *high;
    }
}

/* Sort the order stably by value, and fill the keys; return whether there is a NaN.
 *
 * One pass puts the elements into equal intervals between the least and the greatest
 * value; few of them then have to move. Where many share an interval (far outliers,
 * infinities) the keys are sorted digit by digit instead. */
static int sort_by_value(Scratch *s, const double *values, Py_ssize_t n)
{
    uint32_t *bucket = s->bucket[0], start = 0;
    int n_intervals = 3 * (int)(n < N_BUCKETS ? n : N_BUCKETS);
    double low, high;
    if (fill_keys(s, values, n))
        return 1;
    find_range(values, n, &low, &high);
    double scale = (n_intervals - 1) / (high - low);
    if (scale > 0 && scale <= DBL_MAX && n <= 8 * N_BUCKETS) {
        memset(bucket, 0, n_intervals * sizeof *bucket);
        for (Py_ssize_t i = 0; i < n; i++) {
            s->interval[i] = (uint32_t)((values[i] - low) * scale);
            bucket[s->interval[i]]++;
        }
        for (int b = 0; b < n_intervals; b++) {
            uint32_t size = bucket[b];
            bucket[b] = start;
            start += size;
        }
        for (Py_ssize_t i = 0; i < n; i++) {
            uint32_t element = s->order[i];
            s->other[bucket[s->interval[element]]++] = element;
        }
        swap_buffers(s);
        if (insertion_sort(s, n, 4 * n))
            return 0;
        memcpy(s->order, s->other, n * sizeof *s->order);
    }
    sort_by_digits(s, n, 0);
    sort_by_digits(s, n, 33);
    return 0;
}

FOR_EACH_PROCESSOR
static int64_t inversions(Scratch *s, Py_ssize_t n)
{
    uint32_t n_words = (uint32_t)((n + WORD_BITS - 1) / WORD_BITS);
    int64_t count = 0;
    memset(s->set, 0, n_words * sizeof *s->set);
    memset(s->below, 0, n_words * sizeof *s->below);
    memset(s->taken, 0, n * sizeof *s->taken);
    for (Py_ssize_t i = 0; i < n; i++) {
        /* In order of b, and of a where b is tied; numbered in order of a, and of b
         * where a is tied: so no tie counts. */
        uint32_t run = s->run[s->order[i]];
        uint32_t number = run + s->taken[run]++;
        uint32_t word = number / WORD_BITS;
        uint64_t bit = (uint64_t)1 << (number % WORD_BITS);
        count += i - s->below[word] - POPCOUNT(s->set[word] & (bit - 1));
        s->set[word] |= bit;
        for (uint32_t w = 0; w < n_words; w++)
            s->below[w] += w > word;
    }
    return count;
}

/* Count one row's pairs; return 0, or 1 if a has a NaN, 2 if b has. */
static int count_row(Scratch *s, const double *a, const double *b, Py_ssize_t n,
                     int64_t *counts)
{
    memset(counts, 0, N_COUNTS * sizeof *counts);
    for (Py_ssize_t i = 0; i < n; i++)
        s->order[i] = (uint32_t)i;
    if (sort_by_value(s, a, n))
        return 1;
    uint32_t run = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (i && s->key[s->order[i]] != s->key[s->order[i - 1]])
            run = (uint32_t)i;
        s->run[s->order[i]] = run;
        counts[TIED_A] += i - run;
    }
    if (sort_by_value(s, b, n))
        return 2;
    uint32_t run_b = 0, run_both = 0;
    for (Py_ssize_t i = 1; i < n; i++) {
        uint32_t now = s->order[i], before = s->order[i - 1];
        if (s->key[now] != s->key[before])
            run_b = run_both = (uint32_t)i;
        else if (s->run[now] != s->run[before])
            run_both = (uint32_t)i;
        counts[TIED_B] += i - run_b;
        counts[TIED_BOTH] += i - run_both;
    }
    counts[DISCORDANT] = inversions(s, n);
    return 0;
}

/* Scratch for rows of n, in one block of memory; NULL if there is none. */
static void *allocate(Scratch *s, Py_ssize_t n)
{
    size_t n_words = (n + WORD_BITS - 1) / WORD_BITS;
    char *block = malloc(8 * (3 * n + n_words) + 4 * (5 * (size_t)n + n_words));
    s->values[0] = (double *)block;
    s->values[1] = s->values[0] + n;
    s->key = (uint64_t *)(s->values[1] + n);
    s->set = s->key + n;
    s->order = (uint32_t *)(s->set + n_words);
    s->other = s->order + n;
    s->interval = s->other + n;
    s->run = s->interval + n;
    s->taken = s->run + n;
    s->below = s->taken + n;
    return block;
}

/* A row as doubles: where it lies, or converted. */
static const double *row_of(const Py_buffer *rows, Py_ssize_t r, Py_ssize_t n,
                            int single, double *converted)
{
    if (!single)
        return (const double *)rows->buf + r * n;
    const float *row = (const float *)rows->buf + r * n;
    for (Py_ssize_t i = 0; i < n; i++)
        converted[i] = row[i];
    return converted;
}

static PyObject *count_pairs(PyObject *module, PyObject *args)
{
    Py_buffer a, b, out;
    Py_ssize_t n;
    int single;
    if (!PyArg_ParseTuple(args, "y*y*npw*", &a, &b, &n, &single, &out))
        return NULL;
    Py_ssize_t row_bytes = n * (Py_ssize_t)(single ? sizeof(float) : sizeof(double));
    Py_ssize_t n_rows = n < 2 || n > INT32_MAX / 2 ? -1 : a.len / row_bytes;
    void *block = NULL;
    int nan_in = 0;
    if (n_rows < 0 || a.len != n_rows * row_bytes || b.len != a.len ||
        out.len != n_rows * N_COUNTS * (Py_ssize_t)sizeof(int64_t)) {
        PyErr_SetString(PyExc_ValueError, "the buffers' sizes do not fit together");
    } else {
        Scratch *s = malloc(sizeof *s);
        block = s ? allocate(s, n) : NULL;
        if (block == NULL) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS
            for (Py_ssize_t r = 0; r < n_rows && !nan_in; r++)
                nan_in = count_row(s, row_of(&a, r, n, single, s->values[0]),
                                   row_of(&b, r, n, single, s->values[1]), n,
                                   (int64_t *)out.buf + r * N_COUNTS);
            Py_END_ALLOW_THREADS
            if (nan_in)
                PyErr_Format(PyExc_ValueError, "%c has NaN.", "ab"[nan_in - 1]);
        }
        free(block);
        free(s);
    }
    PyBuffer_Release(&a);
    PyBuffer_Release(&b);
    PyBuffer_Release(&out);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"count_pairs", count_pairs, METH_VARARGS,
     "count_pairs(a, b, n, single, out)\n--\n\n"
     "Fill out (m, 4), int64, from a and b (m, n), float32 if single, else float64:\n"
     "discordant pairs, pairs tied in a, in b, in both."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kendall", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kendall(void)
{
    return PyModuleDef_Init(&definition);
}
