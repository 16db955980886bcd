/* Counts for Kendall's tau, one row after another.
 *
 * Optional: kendall.py uses this on CPU where a compiler was at hand at installation,
 * and torch otherwise; both count the same integers. A row of K takes two stable sorts,
 * of a, then of b in the order of a, so that each element of b comes with its number in
 * the order of a. What is out of order in these numbers is counted block by block.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DIGIT_BITS 11 /* at most */
#define N_BUCKETS (1 << DIGIT_BITS)
#define FEW 20        /* an insertion sort alone is faster */
#define WORD_BITS 64
#define N_WORDS 16
#define BLOCK (N_WORDS * WORD_BITS)

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


/* Sixteen counts at once; a processor with AVX2 adds to all by one instruction. */
#if defined(__GNUC__) && !defined(PORTABLE)
typedef int16_t Lanes __attribute__((vector_size(2 * N_WORDS)));
static const Lanes LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#define ADD_TO_LANES_ABOVE(lanes, i) (lanes) -= LANE > (int16_t)(i)
#else
typedef int16_t Lanes[N_WORDS];
#define ADD_TO_LANES_ABOVE(lanes, i) \
    for (uint32_t lane = 0; lane < N_WORDS; lane++) (lanes)[lane] += lane > (i)
#endif

enum { DISCORDANT, TIED_A, TIED_B, TIED_BOTH, N_COUNTS };

typedef struct {
    double *values[2];    /* a row of a and of b, where they come in single precision */
    double *rearranged;   /* b in the order of a */
    double *sorted;       /* the values in order */
    uint64_t *key;        /* of each value, ordered as it is */
    uint32_t *order;      /* where the sorted values were */
    uint32_t *other;      /* a second buffer */
    uint32_t *run;        /* for each place in the order of a, where its ties start */
    uint32_t *taken;      /* of each such run, how many numbers are given away */
    uint32_t bucket[2][N_BUCKETS];
} Scratch;

static void swap_buffers(Scratch *s)
{
    uint32_t *order = s->order;
    s->order = s->other;
    s->other = order;
}

/* Sort the order, stably, by two digits of the keys from bit `shift` on. */
static void sort_by_digits(Scratch *s, Py_ssize_t n, int shift, int digit_bits)
{
    uint32_t n_buckets = 1u << digit_bits, mask = n_buckets - 1;
    uint32_t *lower = s->bucket[0], *upper = s->bucket[1];
    memset(lower, 0, n_buckets * sizeof *lower);
    memset(upper, 0, n_buckets * sizeof *upper);
    for (Py_ssize_t i = 0; i < n; i++) {
        uint64_t bits = s->key[i] >> shift;
        lower[bits & mask]++;
        upper[bits >> digit_bits & mask]++;
    }
    for (int digit = 0; digit < 2; digit++) {
        uint32_t *bucket = s->bucket[digit], start = 0;
        int lowest = shift + digit * digit_bits;
        if (bucket[s->key[0] >> lowest & mask] == n)
            continue; /* all have the same digit */
        for (uint32_t b = 0; b < n_buckets; b++) {
            uint32_t size = bucket[b];
            bucket[b] = start;
            start += size;
        }
        for (Py_ssize_t i = 0; i < n; i++) {
            uint32_t element = s->order[i];
            s->other[bucket[s->key[element] >> lowest & mask]++] = element;
        }
        swap_buffers(s);
    }
}

/* Move the sorted values at most `limit` places until they are in order, stably;
 * return whether that was enough, or -1 if there is a NaN. */
static int insertion_sort(Scratch *s, Py_ssize_t n, Py_ssize_t limit)
{
    double *sorted = s->sorted;
    for (Py_ssize_t i = 1; i < n; i++) {
        double value = sorted[i];
        if (sorted[i - 1] <= value)
            continue;
        if (value != value || sorted[i - 1] != sorted[i - 1])
            return -1;
        uint32_t element = s->order[i];
        Py_ssize_t j = i;
        for (; j > 0 && sorted[j - 1] > value; j--) {
            sorted[j] = sorted[j - 1];
            s->order[j] = s->order[j - 1];
        }
        sorted[j] = value;
        s->order[j] = element;
        limit -= i - j;
        if (limit < 0)
            return 0;
    }
    return 1;
}

/* Least and greatest of n values: of eight series, which do not wait for each other. */
FOR_EACH_PROCESSOR
static void find_range(const double *values, Py_ssize_t n, double *low, double *high)
{
    double lows[8], highs[8];
    for (int j = 0; j < 8; j++)
        lows[j] = highs[j] = values[0];
    for (Py_ssize_t i = 0; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) {
            lows[j] = values[i + j] < lows[j] ? values[i + j] : lows[j];
            highs[j] = values[i + j] > highs[j] ? values[i + j] : highs[j];
        }
    for (Py_ssize_t i = n - n % 8; i < n; i++) {
        lows[0] = values[i] < lows[0] ? values[i] : lows[0];
        highs[0] = values[i] > highs[0] ? values[i] : highs[0];
    }
    *low = lows[0];
    *high = highs[0];
    for (int j = 1; j < 8; j++) {
        *low = lows[j] < *low ? lows[j] : *low;
        *high = highs[j] > *high ? highs[j] : *high;
    }
}

/* Number the equal intervals of the range that the values lie in. */
FOR_EACH_PROCESSOR
static void fill_intervals(uint64_t *key, const double *values, Py_ssize_t n,
                           double low, double scale, double last)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double interval = (values[i] - low) * scale;
        key[i] = (uint64_t)(int32_t)(interval < last ? interval : last); /* NaN: last */
    }
}

/* Sort the order by equal intervals of the range; return whether there are such. */
static int sort_by_intervals(Scratch *s, const double *values, Py_ssize_t n)
{
    double low, high;
    int digit_bits = n < 256 ? 6 : n < 4096 ? 8 : DIGIT_BITS;
    double last = (double)((1 << 2 * digit_bits) - 1);
    find_range(values, n, &low, &high);
    double scale = last / (high - low);
    if (!(scale > 0 && scale <= DBL_MAX))
        return 0;
    fill_intervals(s->key, values, n, low, scale, last);
    sort_by_digits(s, n, 0, digit_bits);
    return 1;
}

/* Sort the values stably and keep where they were; return whether there is a NaN.
 *
 * There are so many intervals that few elements have to move afterwards. Where many
 * share one (far outliers, infinities) the values are sorted by all their digits. */
static int sort_by_value(Scratch *s, const double *values, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        s->order[i] = (uint32_t)i;
    if (n <= FEW || sort_by_intervals(s, values, n)) {
        for (Py_ssize_t i = 0; i < n; i++)
            s->sorted[i] = values[s->order[i]];
        int done = insertion_sort(s, n, FEW * n);
        if (done)
            return done < 0;
        for (Py_ssize_t i = 0; i < n; i++)
            s->order[i] = (uint32_t)i;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        double value = values[i] + 0.0; /* -0 becomes 0 */
        uint64_t bits;
        if (value != value)
            return 1;
        memcpy(&bits, &value, sizeof bits);
        s->key[i] = bits ^ ((0 - (bits >> 63)) | (uint64_t)1 << 63);
    }
    for (int shift = 0; shift < 64; shift += 2 * DIGIT_BITS)
        sort_by_digits(s, n, shift, DIGIT_BITS);
    for (Py_ssize_t i = 0; i < n; i++)
        s->sorted[i] = values[s->order[i]];
    return 0;
}

/* Pairs out of order among numbers of one block: with those in words above by counting
 * what is in each word, with those in the same word by a set of bits. */
FOR_EACH_PROCESSOR
static int64_t inversions_in_block(const uint32_t *number, Py_ssize_t n)
{
    uint64_t set[N_WORDS] = {0};
    int64_t count = n * (n - 1) / 2;
    Lanes below = {0};
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t word = number[i] / WORD_BITS % N_WORDS;
        uint64_t bit = (uint64_t)1 << (number[i] % WORD_BITS);
        count -= below[word] + POPCOUNT(set[word] & (bit - 1));
        set[word] |= bit;
        ADD_TO_LANES_ABOVE(below, word);
    }
    return count;
}

/* Pairs out of order among the numbers 0 to n - 1, which it rearranges. */
static int64_t inversions(Scratch *s, Py_ssize_t n)
{
    int64_t count = 0;
    Py_ssize_t size = BLOCK;
    while (size < n)
        size *= 2;
    /* By one bit after the other, from the highest, until blocks are small. */
    for (; size > BLOCK; size /= 2) {
        Py_ssize_t half = size / 2;
        for (Py_ssize_t start = 0; start < n; start += size) {
            Py_ssize_t end = start + size < n ? start + size : n;
            Py_ssize_t lower = start, upper = start + half;
            for (Py_ssize_t i = start; i < end; i++) {
                Py_ssize_t is_upper = 0 - ((s->order[i] & half) != 0); /* all bits */
                s->other[(upper & is_upper) | (lower & ~is_upper)] = s->order[i];
                count += (upper - start - half) & ~is_upper;
                upper -= is_upper;
                lower += 1 + is_upper;
            }
        }
        swap_buffers(s);
    }
    for (Py_ssize_t start = 0; start < n; start += BLOCK)
        count += inversions_in_block(s->order + start,
                                     n - start < BLOCK ? n - start : BLOCK);
    return count;
}

/* Count one row's pairs; return 0, or 1 if a has a NaN, 2 if b has. */
static int count_row(Scratch *s, const double *a, const double *b, Py_ssize_t n,
                     int64_t *counts)
{
    int64_t tied_a = 0, tied_b = 0, tied_both = 0;
    if (sort_by_value(s, a, n))
        return 1;
    uint32_t run = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (i && s->sorted[i] != s->sorted[i - 1])
            run = (uint32_t)i;
        s->run[i] = run;
        tied_a += i - run;
        s->rearranged[i] = b[s->order[i]];
    }
    if (sort_by_value(s, s->rearranged, n))
        return 2;
    uint32_t run_b = 0, run_both = 0;
    for (Py_ssize_t i = 1; i < n; i++) {
        if (s->sorted[i] != s->sorted[i - 1])
            run_b = run_both = (uint32_t)i;
        else if (s->run[s->order[i]] != s->run[s->order[i - 1]])
            run_both = (uint32_t)i;
        tied_b += i - run_b;
        tied_both += i - run_both;
    }
    if (tied_a) {
        /* Where a is tied, numbered in the order of b: so no tie counts. */
        memset(s->taken, 0, n * sizeof *s->taken);
        for (Py_ssize_t i = 0; i < n; i++) {
            uint32_t first = s->run[s->order[i]];
            s->order[i] = first + s->taken[first]++;
        }
    }
    counts[DISCORDANT] = inversions(s, n);
    counts[TIED_A] = tied_a;
    counts[TIED_B] = tied_b;
    counts[TIED_BOTH] = tied_both;
    return 0;
}

/* Scratch for rows of n, in one block of memory; NULL if there is none. */
static void *allocate(Scratch *s, Py_ssize_t n)
{
    char *block = malloc((5 * sizeof(double) + 4 * sizeof(uint32_t)) * (size_t)n);
    s->values[0] = (double *)block;
    s->values[1] = s->values[0] + n;
    s->rearranged = s->values[1] + n;
    s->sorted = s->rearranged + n;
    s->key = (uint64_t *)(s->sorted + n);
    s->order = (uint32_t *)(s->key + n);
    s->other = s->order + n;
    s->run = s->other + n;
    s->taken = s->run + n;
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
