/* The functions of octets/python.py in C: the same answers, octet for octet, in one pass each.
 *
 * Optional: built where a compiler is, and octets/chosen.py takes the Python ones where it is not. Every function takes
 * and returns Python objects only, keeps no state, and never calls back into Python code but to hash a str, and to make
 * the events that read_packets is told to make. A type that the Python function would not take raises TypeError; whatever
 * the octets, nothing else is raised but MemoryError.
 *
 * Reading beyond the end is kept out by form: every loop is bounded by an `end` pointer made once from the object's size.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

typedef unsigned char octet;

/* RFC 5322 3.6.8 ftext: printable US-ASCII but the colon. */
static int is_ftext(octet c) { return c > 32 && c < 127 && c != ':'; }

static int is_blank(octet c) { return c == ' ' || c == '\t'; }

static octet lower(octet c) { return c >= 'A' && c <= 'Z' ? (octet)(c + 32) : c; }

/* -- bodies ---------------------------------------------------------------------------------------------------- */

enum { BLOCK = 64 };

/* Whether a block holds anything that the relaxed form changes: a tab, or a blank before a blank or a CR. One octet
 * behind the block is read too. Without branches, so that compilers make it vector code. */
static int block_changes(const octet *p) {
    octet found = 0;
    for (int i = 0; i < BLOCK; i++) {
        octet c = p[i], next = p[i + 1];
        found |= (octet)((c == '\t') | ((c == ' ') & ((next == ' ') | (next == '\r') | (next == '\t'))));
    }
    return found;
}

/* Write [p, end) in relaxed form (RFC 6376 3.4.4), the first `same` octets of which nothing changes, and return the end
 * of what was written: at most as much as is read. */
static octet *write_relaxed_body(octet *out, const octet *p, const octet *end, Py_ssize_t same) {
    memcpy(out, p, (size_t)same);
    out += same;
    p += same;
    int pending = 0; /* white space was met, and nothing behind it yet */
    while (p < end) {
        if (!pending && end - p > BLOCK && !block_changes(p)) {
            memcpy(out, p, BLOCK);
            out += BLOCK;
            p += BLOCK;
            continue;
        }
        const octet *stop = end - p > BLOCK ? p + BLOCK : end;
        while (p < stop) {
            octet c = *p;
            if (is_blank(c)) {
                pending = 1;
                p++;
                continue;
            }
            if (pending) {
                /* white space at the end of a line vanishes, elsewhere it is one blank */
                if (!(c == '\r' && p + 1 < end && p[1] == '\n')) *out++ = ' ';
                pending = 0;
            }
            *out++ = c;
            p++;
        }
    }
    if (pending) *out++ = ' ';
    return out;
}

/* How many octets from `p` on the relaxed form leaves as they are: all of them, or whole blocks. */
static Py_ssize_t unchanged(const octet *p, const octet *end) {
    const octet *const begin = p;
    /* most encoded bodies hold nothing to change, and need no copy */
    while (end - p > BLOCK && !block_changes(p)) p += BLOCK;
    if (end - p <= BLOCK) {
        const octet *q = p;
        while (q < end && !(*q == '\t' || (*q == ' ' && q + 1 < end && (is_blank(q[1]) || q[1] == '\r')))) q++;
        if (q == end) return end - begin;
    }
    return p - begin;
}

PyDoc_STRVAR(body_piece_doc, "body_piece(data, relaxed)\n--\n\nSee authmilter.octets.python.body_piece.");

static PyObject *body_piece(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "body_piece(data: bytes, relaxed: bool)");
        return NULL;
    }
    PyObject *data = args[0];
    const int relaxed = PyObject_IsTrue(args[1]);
    if (relaxed < 0) return NULL;
    const octet *const begin = (const octet *)PyBytes_AS_STRING(data);
    const octet *end = begin + PyBytes_GET_SIZE(data);
    char held[2];
    Py_ssize_t holds = 0;
    const int cr = end > begin && end[-1] == '\r';
    if (cr) end--;
    if (relaxed && end > begin && is_blank(end[-1])) {
        held[holds++] = ' ';
        while (end > begin && is_blank(end[-1])) end--;
    }
    if (cr) held[holds++] = '\r';
    const Py_ssize_t size = end - begin, same = relaxed ? unchanged(begin, end) : size;
    PyObject *piece = NULL; /* nothing: the first octets of the data are the piece */
    const octet *first = begin;
    Py_ssize_t length = size, empty = 0;
    if (same != size) {
        piece = PyBytes_FromStringAndSize(NULL, size);
        if (piece == NULL) return NULL;
        octet *const out = (octet *)PyBytes_AS_STRING(piece);
        length = write_relaxed_body(out, begin, end, same) - out;
        first = out;
    }
    while (length >= 2 && first[length - 2] == '\r' && first[length - 1] == '\n') {
        length -= 2;
        empty++;
    }
    if (length && empty) { /* the first of them ends the last line */
        length += 2;
        empty--;
    }
    if (piece != NULL) {
        if (_PyBytes_Resize(&piece, length) < 0) return NULL;
    } else if (length == PyBytes_GET_SIZE(data)) {
        piece = Py_NewRef(data);
    } else {
        piece = PyBytes_FromStringAndSize((const char *)begin, length);
        if (piece == NULL) return NULL;
    }
    return Py_BuildValue("(Nny#)", piece, empty, held, holds);
}

/* what `line_ends` knows, as in octets/python.py */
enum { BARE_CR = 1, BARE_LF = 2, AFTER_CR = 4 };

PyDoc_STRVAR(line_ends_doc, "line_ends(data, known)\n--\n\nSee authmilter.octets.python.line_ends.");

static PyObject *line_ends(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "line_ends(data: bytes, known: int)");
        return NULL;
    }
    long known = PyLong_AsLong(args[1]);
    if (known == -1 && PyErr_Occurred()) return NULL;
    const Py_ssize_t size = PyBytes_GET_SIZE(args[0]);
    const octet *const p = (const octet *)PyBytes_AS_STRING(args[0]);
    if (size == 0) return Py_NewRef(args[1]);
    if (p[0] == '\n') known |= known & AFTER_CR ? 0 : BARE_LF;
    else known |= known & AFTER_CR ? BARE_CR : 0;
    if ((known & (BARE_CR | BARE_LF)) != (BARE_CR | BARE_LF)) {
        octet crs = 0, lfs = 0; /* without branches, so that compilers make it vector code */
        for (Py_ssize_t i = 0; i + 1 < size; i++) {
            crs |= (octet)((p[i] == '\r') & (p[i + 1] != '\n'));
            lfs |= (octet)((p[i] != '\r') & (p[i + 1] == '\n'));
        }
        known |= (crs ? BARE_CR : 0) | (lfs ? BARE_LF : 0);
    }
    return PyLong_FromLong(p[size - 1] == '\r' ? known | AFTER_CR : known & ~AFTER_CR);
}

/* -- header fields ----------------------------------------------------------------------------------------------- */

/* Write a field in relaxed form (RFC 6376 3.4.2) and return the end of what was written: at most as much as is read,
 * and the colon. */
static octet *write_relaxed(octet *out, PyObject *name, PyObject *value) {
    const octet *p = (const octet *)PyBytes_AS_STRING(name);
    const octet *end = p + PyBytes_GET_SIZE(name);
    while (end > p && (is_blank(end[-1]) || end[-1] == '\r' || end[-1] == '\n')) end--;
    while (p < end) *out++ = lower(*p++);
    *out++ = ':';
    p = (const octet *)PyBytes_AS_STRING(value);
    end = p + PyBytes_GET_SIZE(value);
    int pending = 0;
    const octet *const first = out;
    while (p < end) {
        octet c = *p++;
        if (is_blank(c)) {
            pending = 1;
        } else if (c == '\r' && p < end && *p == '\n') {
            p++;
        } else {
            if (pending && out > first) *out++ = ' ';
            pending = 0;
            *out++ = c;
        }
    }
    return out;
}

static octet *write_simple(octet *out, PyObject *name, PyObject *value) {
    memcpy(out, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name));
    out += PyBytes_GET_SIZE(name);
    *out++ = ':';
    memcpy(out, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
    return out + PyBytes_GET_SIZE(value);
}

/* A field as Python has it: a tuple of two bytes objects, or a value of a subclass of tuple. */
static int is_field(PyObject *item) {
    return PyTuple_Check(item) && PyTuple_GET_SIZE(item) == 2 && PyBytes_Check(PyTuple_GET_ITEM(item, 0)) &&
           PyBytes_Check(PyTuple_GET_ITEM(item, 1));
}

static Py_ssize_t field_size(PyObject *item) {
    return PyBytes_GET_SIZE(PyTuple_GET_ITEM(item, 0)) + PyBytes_GET_SIZE(PyTuple_GET_ITEM(item, 1)) + 3;
}

PyDoc_STRVAR(relaxed_field_doc, "relaxed_field(name, value)\n--\n\nSee authmilter.octets.python.relaxed_field.");

static PyObject *relaxed_field(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "relaxed_field(name: bytes, value: bytes)");
        return NULL;
    }
    PyObject *result = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(args[0]) + PyBytes_GET_SIZE(args[1]) + 1);
    if (result == NULL) return NULL;
    octet *const first = (octet *)PyBytes_AS_STRING(result);
    if (_PyBytes_Resize(&result, write_relaxed(first, args[0], args[1]) - first) < 0) return NULL;
    return result;
}

PyDoc_STRVAR(unsigned_value_doc, "unsigned_value(value)\n--\n\nSee authmilter.octets.python.unsigned_value.");

static PyObject *unsigned_value(PyObject *Py_UNUSED(module), PyObject *value) {
    if (!PyBytes_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "value must be bytes");
        return NULL;
    }
    const octet *const begin = (const octet *)PyBytes_AS_STRING(value);
    const octet *const end = begin + PyBytes_GET_SIZE(value);
    const octet *spec = begin;
    for (;;) {
        const octet *stop = memchr(spec, ';', (size_t)(end - spec));
        if (stop == NULL) stop = end;
        const octet *equals = memchr(spec, '=', (size_t)(stop - spec));
        const octet *first = spec, *last = equals == NULL ? stop : equals;
        while (first < last && (is_blank(*first) || *first == '\r' || *first == '\n')) first++;
        while (last > first && (is_blank(last[-1]) || last[-1] == '\r' || last[-1] == '\n')) last--;
        if (last - first == 1 && *first == 'b') {
            if (equals == NULL) return Py_NewRef(value);
            const Py_ssize_t head = equals + 1 - begin, tail = end - stop;
            PyObject *result = PyBytes_FromStringAndSize(NULL, head + tail);
            if (result == NULL) return NULL;
            memcpy(PyBytes_AS_STRING(result), begin, (size_t)head);
            memcpy(PyBytes_AS_STRING(result) + head, stop, (size_t)tail);
            return result;
        }
        if (stop == end) return Py_NewRef(value);
        spec = stop + 1;
    }
}

/* Fields of one name, and how many of them have been passed, from the bottom. */
typedef struct {
    PyObject *group;
    Py_ssize_t passed;
} Taken;

/* Return the next of the fields that a name of h= stands for; NULL if there is none. `kept` groups are in `taken`, few:
 * whoever reads h= takes a hundred or two of names. All references are borrowed: nothing here runs Python. */
static PyObject *take_field(PyObject *group, PyObject *own, Taken *taken, Py_ssize_t *kept) {
    Py_ssize_t at = 0;
    while (at < *kept && taken[at].group != group) at++;
    if (at == *kept) taken[(*kept)++] = (Taken){group, 0};
    const Py_ssize_t size = PyTuple_GET_SIZE(group);
    while (taken[at].passed < size) {
        /* RFC 6376 5.4.2: the last one not yet taken; 3.5 h=: the signature itself is never among them */
        PyObject *field = PyTuple_GET_ITEM(group, size - 1 - taken[at].passed++);
        if (field != own) return field;
    }
    return NULL;
}

PyDoc_STRVAR(signed_data_doc, "signed_data(index, names, own, relaxed)\n--\n\nSee authmilter.octets.python.signed_data.");

static PyObject *signed_data(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 4 || !PyDict_Check(args[0]) || !PyTuple_Check(args[1]) || !is_field(args[2])) {
        PyErr_SetString(PyExc_TypeError, "signed_data(index: dict, names: tuple, own: tuple, relaxed: bool)");
        return NULL;
    }
    PyObject *index = args[0], *names = args[1], *own = args[2];
    const int relaxed = PyObject_IsTrue(args[3]);
    if (relaxed < 0) return NULL;
    const Py_ssize_t named = PyTuple_GET_SIZE(names);
    PyObject *result = NULL, *unsigned_own = unsigned_value(NULL, PyTuple_GET_ITEM(own, 1));
    PyObject **chosen = PyMem_Calloc((size_t)named + 1, sizeof(PyObject *));
    Taken *taken = PyMem_Calloc((size_t)named + 1, sizeof(Taken));
    if (unsigned_own == NULL || chosen == NULL || taken == NULL) {
        if (!PyErr_Occurred()) PyErr_NoMemory();
        goto done;
    }
    Py_ssize_t fields = 0, kept = 0, room = field_size(own);
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (!PyUnicode_CheckExact(name)) {
            PyErr_SetString(PyExc_TypeError, "names must be str");
            goto done;
        }
        PyObject *group = PyDict_GetItemWithError(index, name);
        if (group == NULL) {
            if (PyErr_Occurred()) goto done;
            continue;
        }
        if (!PyTuple_Check(group)) {
            PyErr_SetString(PyExc_TypeError, "index must map to tuples");
            goto done;
        }
        PyObject *field = take_field(group, own, taken, &kept);
        if (field == NULL) continue;
        if (!is_field(field)) {
            PyErr_SetString(PyExc_TypeError, "a field must be a tuple of two bytes objects");
            goto done;
        }
        chosen[fields++] = field;
        room += field_size(field);
    }
    result = PyBytes_FromStringAndSize(NULL, room);
    if (result == NULL) goto done;
    octet *const first = (octet *)PyBytes_AS_STRING(result);
    octet *out = first;
    for (Py_ssize_t i = 0; i < fields; i++) {
        PyObject *name = PyTuple_GET_ITEM(chosen[i], 0), *value = PyTuple_GET_ITEM(chosen[i], 1);
        out = relaxed ? write_relaxed(out, name, value) : write_simple(out, name, value);
        *out++ = '\r';
        *out++ = '\n';
    }
    out = relaxed ? write_relaxed(out, PyTuple_GET_ITEM(own, 0), unsigned_own)
                  : write_simple(out, PyTuple_GET_ITEM(own, 0), unsigned_own);
    _PyBytes_Resize(&result, out - first);
done:
    Py_XDECREF(unsigned_own);
    PyMem_Free(chosen);
    PyMem_Free(taken);
    return result;
}

/* Whether there is a NUL, LF or octet over 127. Without branches, so that compilers make it vector code. */
static int has_odd_octet(const octet *p, Py_ssize_t size) {
    octet found = 0;
    for (Py_ssize_t i = 0; i < size; i++) found |= (octet)((p[i] == 0) | (p[i] == '\n') | (p[i] >> 7));
    return found;
}

/* Whether a field's octets are without any defect: what `_is_plain` of octets/python.py asks of all fields at once. */
static int field_is_plain(PyObject *name, PyObject *value, Py_ssize_t longest) {
    const octet *p = (const octet *)PyBytes_AS_STRING(value);
    const octet *const end = p + PyBytes_GET_SIZE(value);
    Py_ssize_t before = PyBytes_GET_SIZE(name) + 1; /* octets of the first line that stand before the value */
    for (;;) {
        const octet *stop = memchr(p, '\r', (size_t)(end - p));
        const Py_ssize_t size = (stop == NULL ? end : stop) - p;
        if (before + size > longest || has_odd_octet(p, size)) return 0;
        if (stop == NULL) return 1;
        /* a fold: CRLF and white space */
        if (end - stop < 3 || stop[1] != '\n' || !is_blank(stop[2])) return 0;
        before = 0;
        p = stop + 2;
    }
}

PyDoc_STRVAR(fields_size_doc, "fields_size(fields)\n--\n\nSee authmilter.octets.python.fields_size.");

static PyObject *fields_size(PyObject *Py_UNUSED(module), PyObject *fields) {
    if (!PyList_Check(fields)) {
        PyErr_SetString(PyExc_TypeError, "fields must be a list");
        return NULL;
    }
    Py_ssize_t size = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(fields); i++) {
        PyObject *item = PyList_GET_ITEM(fields, i);
        if (!is_field(item)) {
            PyErr_SetString(PyExc_TypeError, "a field must be a tuple of two bytes objects");
            return NULL;
        }
        size += field_size(item) - 3;
    }
    return PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(index_fields_doc, "index_fields(fields, longest, room)\n--\n\nSee authmilter.octets.python.index_fields.");

static PyObject *index_fields(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 3 || !PyTuple_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "index_fields(fields: tuple, longest: int, room: int)");
        return NULL;
    }
    const Py_ssize_t longest = PyLong_AsSsize_t(args[1]);
    if (longest == -1 && PyErr_Occurred()) return NULL;
    Py_ssize_t room = PyLong_AsSsize_t(args[2]);
    if (room == -1 && PyErr_Occurred()) return NULL;
    PyObject *fields = args[0];
    PyObject *index = PyDict_New();
    if (index == NULL) return NULL;
    int repeated = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fields); i++) {
        PyObject *item = PyTuple_GET_ITEM(fields, i);
        if (!is_field(item)) {
            PyErr_SetString(PyExc_TypeError, "a field must be a tuple of two bytes objects");
            goto failed;
        }
        PyObject *name = PyTuple_GET_ITEM(item, 0);
        const Py_ssize_t size = PyBytes_GET_SIZE(name);
        const octet *const p = (const octet *)PyBytes_AS_STRING(name);
        room -= field_size(item);
        int regular = size > 0 && room >= 0;
        for (Py_ssize_t n = 0; n < size; n++) regular &= is_ftext(p[n]);
        if (!regular || !field_is_plain(name, PyTuple_GET_ITEM(item, 1), longest)) {
            Py_DECREF(index);
            Py_RETURN_NONE;
        }
        PyObject *key = PyUnicode_New(size, 127);
        if (key == NULL) goto failed;
        for (Py_ssize_t n = 0; n < size; n++) PyUnicode_1BYTE_DATA(key)[n] = lower(p[n]);
        PyObject *group = PyDict_GetItemWithError(index, key);
        int bad = 0;
        if (group == NULL) {
            bad = PyErr_Occurred() != NULL;
            PyObject *one = bad ? NULL : PyTuple_Pack(1, item);
            bad = one == NULL || PyDict_SetItem(index, key, one) < 0;
            Py_XDECREF(one);
        } else {
            /* a list while it grows, so that many fields of one name cost no more than so many of different names */
            repeated = 1;
            if (PyTuple_Check(group)) {
                PyObject *list = PyList_New(1);
                bad = list == NULL;
                if (!bad) {
                    PyList_SET_ITEM(list, 0, Py_NewRef(PyTuple_GET_ITEM(group, 0)));
                    bad = PyList_Append(list, item) < 0 || PyDict_SetItem(index, key, list) < 0;
                    Py_DECREF(list);
                }
            } else {
                bad = PyList_Append(group, item) < 0;
            }
        }
        Py_DECREF(key);
        if (bad) goto failed;
    }
    PyObject *names = repeated ? PyList_New(0) : NULL; /* those that stand more than once, in the order of the index */
    if (repeated) {
        if (names == NULL) goto failed;
        Py_ssize_t at = 0;
        PyObject *key, *group;
        while (PyDict_Next(index, &at, &key, &group)) {
            if (!PyList_Check(group)) continue;
            PyObject *tuple = PyList_AsTuple(group);
            /* (replacing the value of a key that is there does not change the dictionary's shape) */
            if (tuple == NULL || PyList_Append(names, key) < 0 || PyDict_SetItem(index, key, tuple) < 0) {
                Py_XDECREF(tuple);
                Py_DECREF(names);
                goto failed;
            }
            Py_DECREF(tuple);
        }
    }
    PyObject *more = names == NULL ? PyTuple_New(0) : PyList_AsTuple(names);
    Py_XDECREF(names);
    if (more == NULL) goto failed;
    return Py_BuildValue("(NN)", index, more);
failed:
    Py_DECREF(index);
    return NULL;
}

/* -- tag lists ----------------------------------------------------------------------------------------------------- */

static PyObject *ascii_text(const octet *p, Py_ssize_t size) {
    if (size == 1) return PyUnicode_FromOrdinal(*p); /* Python keeps these, and their hashes: most names of tags */
    PyObject *text = PyUnicode_New(size, 127);
    if (text != NULL) memcpy(PyUnicode_1BYTE_DATA(text), p, (size_t)size);
    return text;
}

static int is_alpha(octet c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

/* Put one tag-spec (RFC 6376 3.2), unfolded, into `tags`. Returns 1 if it did, 0 if it is none or stands twice, -1 with
 * an exception. */
static int put_tag(PyObject *tags, const octet *p, const octet *end) {
    while (p < end && is_blank(*p)) p++;
    const octet *const name = p;
    if (p == end || !is_alpha(*p)) return 0;
    while (p < end && (is_alpha(*p) || (*p >= '0' && *p <= '9') || *p == '_')) p++;
    const octet *const name_end = p;
    while (p < end && is_blank(*p)) p++;
    if (p == end || *p != '=') return 0;
    p++;
    while (p < end && is_blank(*p)) p++;
    while (end > p && is_blank(end[-1])) end--;
    PyObject *key = ascii_text(name, name_end - name);
    PyObject *value = key == NULL ? NULL : ascii_text(p, end - p);
    int done = -1;
    if (value != NULL) {
        done = PyDict_Contains(tags, key);
        if (done == 0) done = PyDict_SetItem(tags, key, value) < 0 ? -1 : 1;
        else if (done == 1) done = 0;
    }
    Py_XDECREF(key);
    Py_XDECREF(value);
    return done;
}

PyDoc_STRVAR(plain_tags_doc, "plain_tags(text)\n--\n\nSee authmilter.octets.python.plain_tags.");

static PyObject *plain_tags(PyObject *Py_UNUSED(module), PyObject *text) {
    if (!PyBytes_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "text must be bytes");
        return NULL;
    }
    const octet *p = (const octet *)PyBytes_AS_STRING(text);
    const octet *const end = p + PyBytes_GET_SIZE(text);
    octet *const line = PyMem_Malloc((size_t)PyBytes_GET_SIZE(text) + 1);
    if (line == NULL) return PyErr_NoMemory();
    PyObject *tags = PyDict_New();
    int state = tags == NULL ? -1 : 1, first = 1;
    octet *out = line;
    while (state == 1) {
        const int over = p == end;
        if (over || *p == ';') {
            const octet *blank = line;
            while (blank < out && is_blank(*blank)) blank++;
            /* tag-list = tag-spec *( ";" tag-spec ) [ ";" ] */
            if (!(over && !first && blank == out)) state = put_tag(tags, line, out);
            if (over) break;
            first = 0;
            out = line;
            p++;
        } else if (*p == '\r' && end - p > 2 && p[1] == '\n' && is_blank(p[2])) {
            p += 2;
        } else if (*p == '\t' || (*p >= 32 && *p < 127)) {
            *out++ = *p++;
        } else {
            state = 0;
        }
    }
    PyMem_Free(line);
    if (state == 1) return tags;
    Py_XDECREF(tags);
    if (state < 0) return NULL;
    Py_RETURN_NONE;
}

/* The values of the characters of base64 (RFC 4648 4), and what other octets are. */
enum { PADDING = 64, BLANK = 65, WRONG = 66 };
static octet base64_values[256];

static void fill_base64_values(void) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    memset(base64_values, WRONG, sizeof base64_values);
    for (octet i = 0; i < 64; i++) base64_values[(octet)alphabet[i]] = i;
    base64_values['='] = PADDING;
    base64_values[' '] = base64_values['\t'] = BLANK;
}

PyDoc_STRVAR(base64_octets_doc, "base64_octets(text)\n--\n\nSee authmilter.octets.python.base64_octets.");

static PyObject *base64_octets(PyObject *Py_UNUSED(module), PyObject *text) {
    if (!PyUnicode_CheckExact(text)) {
        PyErr_SetString(PyExc_TypeError, "text must be str");
        return NULL;
    }
    if (!PyUnicode_IS_COMPACT_ASCII(text)) Py_RETURN_NONE;
    const octet *p = (const octet *)PyUnicode_1BYTE_DATA(text);
    const octet *const end = p + PyUnicode_GET_LENGTH(text);
    PyObject *result = PyBytes_FromStringAndSize(NULL, (end - p) / 4 * 3 + 3);
    if (result == NULL) return NULL;
    octet *const first = (octet *)PyBytes_AS_STRING(result);
    octet *out = first;
    uint32_t bits = 0;
    int characters = 0, padding = 0, wrong = p == end; /* the characters of the last four that are begun */
    while (p < end && !wrong) {
        const octet value = base64_values[*p++];
        if (value < PADDING) {
            wrong = padding;
            bits = bits << 6 | value;
            if (++characters < 4) continue;
            characters = 0;
            *out++ = (octet)(bits >> 16);
            *out++ = (octet)(bits >> 8);
            *out++ = (octet)bits;
        } else if (value == PADDING) {
            padding++;
            /* two or three characters stand before it, and it makes them four */
            wrong = characters + padding > 4 || characters < 2;
        } else {
            wrong = value == WRONG;
        }
    }
    if (wrong || (characters + padding) % 4 != 0 || (characters == 0 && out == first)) {
        Py_DECREF(result);
        Py_RETURN_NONE;
    }
    if (padding) *out++ = (octet)(padding == 1 ? bits >> 10 : bits >> 4);
    if (padding == 1) *out++ = (octet)(bits >> 2);
    if (_PyBytes_Resize(&result, out - first) < 0) return NULL;
    return result;
}

/* -- packets of the milter protocol ----------------------------------------------------------------------------- */

/* A header field's value, with CRLF for each LF that has no CR, as it was on the wire. */
static PyObject *with_crlf(const octet *p, Py_ssize_t size) {
    const octet *const end = p + size;
    Py_ssize_t missing = 0;
    for (const octet *q = p; q < end; q++) missing += *q == '\n' && (q == p || q[-1] != '\r');
    PyObject *value = PyBytes_FromStringAndSize(missing ? NULL : (const char *)p, size + missing);
    if (value == NULL || !missing) return value;
    octet *out = (octet *)PyBytes_AS_STRING(value);
    for (const octet *q = p; q < end; q++) {
        if (*q == '\n' && (q == p || q[-1] != '\r')) *out++ = '\r';
        *out++ = *q;
    }
    return value;
}

/* A new field of `type`, a subclass of tuple without room of its own (checked by the caller). Takes both references. */
static PyObject *new_field(PyTypeObject *type, PyObject *name, PyObject *value) {
    PyObject *field = name == NULL || value == NULL ? NULL : type->tp_alloc(type, 2);
    if (field == NULL) {
        Py_XDECREF(name);
        Py_XDECREF(value);
        return NULL;
    }
    PyTuple_SET_ITEM(field, 0, name);
    PyTuple_SET_ITEM(field, 1, value);
    return field;
}

/* Shape, Reading and PacketTable of octets/python.py. */
enum { NOTHING, OCTETS, STRING, STRINGS, NUMBERS, MACROS, CLIENT, FIELD };

typedef struct {
    long shape;
    PyObject *make, *word, *known; /* borrowed from the table */
    Py_ssize_t most;
    PyObject *fault; /* why a packet is none of its command: a str, ours */
} Reading;

/* Take one entry of the table; 0 where there is no such command, -1 where the entry is none. */
static int take_reading(Reading *reading, PyObject *entry) {
    if (entry == Py_None) return 0;
    if (!PyTuple_Check(entry) || PyTuple_GET_SIZE(entry) != 4 || !PyLong_Check(PyTuple_GET_ITEM(entry, 0)) ||
        !PyUnicode_Check(PyTuple_GET_ITEM(entry, 2)) || !PyDict_Check(PyTuple_GET_ITEM(entry, 3))) {
        PyErr_SetString(PyExc_TypeError, "a reading must be (shape: int, make, word: str, known: dict)");
        return -1;
    }
    reading->shape = PyLong_AsLong(PyTuple_GET_ITEM(entry, 0));
    reading->make = PyTuple_GET_ITEM(entry, 1);
    reading->word = PyTuple_GET_ITEM(entry, 2);
    reading->known = PyTuple_GET_ITEM(entry, 3);
    return reading->shape == -1 && PyErr_Occurred() ? -1 : 1;
}

/* Say what is wrong with a packet. */
static PyObject *refuse(Reading *reading, const char *why) {
    reading->fault = PyUnicode_FromFormat("%U%s", reading->word, why);
    return NULL;
}

static PyObject *bytes_of(const octet *p, const octet *end) {
    return PyBytes_FromStringAndSize((const char *)p, end - p);
}

/* Make an event of some values, whose references are taken; of none where one of them could not be made. */
static PyObject *make_event(PyObject *make, PyObject **values, size_t count) {
    int whole = 1;
    for (size_t i = 0; i < count; i++) whole &= values[i] != NULL;
    PyObject *event = whole ? PyObject_Vectorcall(make, values, count, NULL) : NULL;
    for (size_t i = 0; i < count; i++) Py_XDECREF(values[i]);
    return event;
}

/* What the octet of a command or family stands for: a new reference; NULL without an exception if it is not known. */
static PyObject *known_as(Reading *reading, octet c) {
    PyObject *key = PyLong_FromLong(c);
    if (key == NULL) return NULL;
    PyObject *found = PyDict_GetItemWithError(reading->known, key);
    Py_DECREF(key);
    return Py_XNewRef(found);
}

static PyObject *read_string(Reading *reading, const octet *p, const octet *end) {
    if (p == end || end[-1] != 0) return refuse(reading, " without a final NUL");
    PyObject *values[] = {bytes_of(p, memchr(p, 0, (size_t)(end - p)))};
    return make_event(reading->make, values, 1);
}

static PyObject *read_strings(Reading *reading, const octet *p, const octet *end) {
    if (p == end || end[-1] != 0) return refuse(reading, " without a final NUL");
    Py_ssize_t count = 0;
    for (const octet *q = p; q < end && count < reading->most; q++) count += *q == 0;
    PyObject *strings = PyTuple_New(count);
    if (strings == NULL) return NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        const octet *const stop = memchr(p, 0, (size_t)(end - p));
        PyObject *string = bytes_of(p, stop);
        if (string == NULL) {
            Py_DECREF(strings);
            return NULL;
        }
        PyTuple_SET_ITEM(strings, i, string);
        p = stop + 1;
    }
    PyObject *values[] = {strings};
    return make_event(reading->make, values, 1);
}

static uint32_t number_at(const octet *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static octet *put_number(octet *out, uint32_t number) {
    for (int bits = 24; bits >= 0; bits -= 8) *out++ = (octet)(number >> bits);
    return out;
}

static PyObject *read_numbers(Reading *reading, const octet *p, const octet *end) {
    if (end - p < 12) return refuse(reading, " that is too short");
    PyObject *values[] = {
        PyLong_FromUnsignedLong(number_at(p)),
        PyLong_FromUnsignedLong(number_at(p + 4)),
        PyLong_FromUnsignedLong(number_at(p + 8)),
    };
    return make_event(reading->make, values, 3);
}

/* The names with their values up to `end`, where a NUL is. */
static PyObject *named_values(const octet *p, const octet *end, Py_ssize_t most) {
    PyObject *values = PyDict_New();
    for (Py_ssize_t i = 0; values != NULL && i < most && p < end; i++) {
        const octet *const name_end = memchr(p, 0, (size_t)(end - p));
        const octet *const begin = name_end + 1;
        if (begin == end) break; /* a name without a value */
        const octet *const value_end = memchr(begin, 0, (size_t)(end - begin));
        PyObject *name = bytes_of(p, name_end);
        PyObject *value = name == NULL ? NULL : bytes_of(begin, value_end);
        if (value == NULL || PyDict_SetItem(values, name, value) < 0) Py_CLEAR(values);
        Py_XDECREF(name);
        Py_XDECREF(value);
        p = value_end + 1;
    }
    return values;
}

static PyObject *read_macros(Reading *reading, const octet *p, const octet *end) {
    PyObject *command = p == end ? NULL : known_as(reading, *p);
    if (command == NULL) return PyErr_Occurred() ? NULL : refuse(reading, " of no known command");
    p++;
    if (p < end && end[-1] != 0) {
        Py_DECREF(command);
        return refuse(reading, " without a final NUL");
    }
    PyObject *values[] = {command, named_values(p, end, reading->most)};
    return make_event(reading->make, values, 2);
}

static PyObject *read_client(Reading *reading, const octet *p, const octet *end) {
    const octet *const name_end = memchr(p, 0, (size_t)(end - p));
    const octet *const rest = name_end == NULL ? end : name_end + 1;
    PyObject *family = rest == end ? NULL : known_as(reading, *rest);
    if (family == NULL) return PyErr_Occurred() ? NULL : refuse(reading, " of no known address family");
    uint32_t port = 0;
    const octet *address = end, *address_end = end;
    if (*rest != 'U') { /* SMFIA_UNKNOWN has no address */
        if (end - rest < 4 || end[-1] != 0) {
            Py_DECREF(family);
            return refuse(reading, " without its address");
        }
        port = (uint32_t)rest[1] << 8 | rest[2];
        address = rest + 3;
        address_end = memchr(address, 0, (size_t)(end - address));
    }
    PyObject *values[] = {
        bytes_of(p, name_end),
        family,
        PyLong_FromUnsignedLong(port),
        bytes_of(address, address_end),
    };
    return make_event(reading->make, values, 4);
}

/* A header field; `kind` is a named tuple (checked by the caller). */
static PyObject *read_field(Reading *reading, PyTypeObject *kind, const octet *p, const octet *end) {
    const octet *const middle = memchr(p, 0, (size_t)(end - p));
    if (middle == NULL || middle == end - 1 || end[-1] != 0) return refuse(reading, " without its two strings");
    return new_field(kind, bytes_of(p, middle), with_crlf(middle + 1, end - 1 - (middle + 1)));
}

/* The event of a packet that is no header field; NULL with a fault or an exception. */
static PyObject *read_event(Reading *reading, const octet *p, const octet *end) {
    switch (reading->shape) {
    case NOTHING: return Py_NewRef(reading->make);
    case OCTETS: {
        PyObject *values[] = {bytes_of(p, end)};
        return make_event(reading->make, values, 1);
    }
    case STRING: return read_string(reading, p, end);
    case STRINGS: return read_strings(reading, p, end);
    case NUMBERS: return read_numbers(reading, p, end);
    case MACROS: return read_macros(reading, p, end);
    case CLIENT: return read_client(reading, p, end);
    default: PyErr_SetString(PyExc_TypeError, "a reading of no known shape"); return NULL;
    }
}

/* Append what was made to a list; takes the reference. */
static int append(PyObject *list, PyObject *item) {
    const int done = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return done;
}

PyDoc_STRVAR(read_packets_doc, "read_packets(data, largest, table)\n--\n\nSee authmilter.octets.python.read_packets.");

static PyObject *read_packets(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    PyObject *table = count == 3 ? args[2] : Py_None;
    if (!PyTuple_Check(table) || PyTuple_GET_SIZE(table) != 3 || !PyBytes_Check(args[0]) ||
        !PyTuple_Check(PyTuple_GET_ITEM(table, 0)) || PyTuple_GET_SIZE(PyTuple_GET_ITEM(table, 0)) != 256 ||
        !PyType_Check(PyTuple_GET_ITEM(table, 1))) {
        PyErr_SetString(PyExc_TypeError, "read_packets(data: bytes, largest: int, table: PacketTable)");
        return NULL;
    }
    const Py_ssize_t largest = PyLong_AsSsize_t(args[1]);
    if (largest == -1 && PyErr_Occurred()) return NULL;
    PyTypeObject *const kind = (PyTypeObject *)PyTuple_GET_ITEM(table, 1);
    if (!PyType_IsSubtype(kind, &PyTuple_Type) || kind->tp_basicsize != PyTuple_Type.tp_basicsize ||
        kind->tp_itemsize != PyTuple_Type.tp_itemsize || kind->tp_dictoffset != 0) {
        PyErr_SetString(PyExc_TypeError, "what a header field becomes must be a named tuple");
        return NULL;
    }
    Reading reading = {.most = PyLong_AsSsize_t(PyTuple_GET_ITEM(table, 2))};
    if (reading.most == -1 && PyErr_Occurred()) return NULL;
    const octet *p = (const octet *)PyBytes_AS_STRING(args[0]);
    const octet *const end = p + PyBytes_GET_SIZE(args[0]);
    Py_ssize_t needed = 5;
    PyObject *run = NULL; /* the list of the header fields that come one after another */
    PyObject *events = PyList_New(0);
    if (events == NULL) return NULL;
    while (end - p >= 5) {
        const uint32_t length = number_at(p);
        const octet command = p[4];
        if (length == 0 || (Py_ssize_t)length > largest) {
            reading.fault = PyUnicode_FromFormat("a packet of %u octets", (unsigned int)length);
            break;
        }
        if (end - p - 4 < (Py_ssize_t)length) {
            needed = 4 + (Py_ssize_t)length;
            break;
        }
        const octet *const payload = p + 5, *const stop = p + 4 + length;
        const int taken = take_reading(&reading, PyTuple_GET_ITEM(PyTuple_GET_ITEM(table, 0), command));
        if (taken < 0) break;
        if (taken == 0) {
            reading.fault = PyUnicode_FromFormat("an unknown command octet 0x%02x", (unsigned int)command);
            break;
        }
        if (reading.shape == FIELD) {
            PyObject *const field = read_field(&reading, kind, payload, stop);
            if (field == NULL) break;
            if (run == NULL) {
                run = PyList_New(0);
                if (run == NULL || append(events, PyObject_CallOneArg(reading.make, run)) < 0) {
                    Py_DECREF(field);
                    break;
                }
            }
            if (append(run, field) < 0) break;
        } else {
            Py_CLEAR(run);
            PyObject *const event = read_event(&reading, payload, stop);
            if (event == NULL || append(events, event) < 0) break;
        }
        p = stop;
    }
    Py_XDECREF(run);
    if (!PyErr_Occurred()) {
        PyObject *const fault = reading.fault == NULL ? PyUnicode_FromString("") : reading.fault;
        return Py_BuildValue("(NNnN)", events, bytes_of(p, end), needed, fault);
    }
    Py_XDECREF(reading.fault);
    Py_DECREF(events);
    return NULL;
}

/* Whether a LF in a header field's value is no fold with more on its line: RFC 5322 2.2.3, and what readers take for one. */
static int ill_folded(const octet *p, const octet *end) {
    while ((p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        p++;
        if (p == end || !is_blank(*p)) return 1;
        while (p < end && (is_blank(*p) || *p == '\v' || *p == '\f')) p++;
        if (p == end || *p == '\n') return 1;
    }
    return 0;
}

PyDoc_STRVAR(edit_packet_doc, "edit_packet(command, number, name, value)\n--\n\nSee authmilter.octets.python.edit_packet.");

static PyObject *edit_packet(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 4 || !PyLong_Check(args[0]) || !(args[1] == Py_None || PyLong_Check(args[1])) ||
        !PyBytes_Check(args[2]) || !PyBytes_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError, "edit_packet(command: int, number: int | None, name: bytes, value: bytes)");
        return NULL;
    }
    const long command = PyLong_AsLong(args[0]);
    if (command == -1 && PyErr_Occurred()) return NULL;
    int overflow = 0;
    const long long number = args[1] == Py_None ? 0 : PyLong_AsLongLongAndOverflow(args[1], &overflow);
    const octet *const name = (const octet *)PyBytes_AS_STRING(args[2]);
    const octet *const value = (const octet *)PyBytes_AS_STRING(args[3]);
    const Py_ssize_t name_size = PyBytes_GET_SIZE(args[2]), value_size = PyBytes_GET_SIZE(args[3]);
    int named = name_size > 0;
    for (Py_ssize_t i = 0; i < name_size; i++) named &= is_ftext(name[i]);
    const char *fault = NULL;
    if (overflow || number < 0 || number > UINT32_MAX) fault = "a header field number that is none";
    else if (!named) fault = "an ill-formed header field name";
    else if (memchr(value, '\r', (size_t)value_size) || memchr(value, 0, (size_t)value_size))
        fault = "a CR or NUL octet in a header field value";
    else if (ill_folded(value, value + value_size)) fault = "an ill-formed fold in a header field value";
    if (fault != NULL) return PyUnicode_FromString(fault);
    const Py_ssize_t numbered = args[1] == Py_None ? 0 : 4;
    const Py_ssize_t size = 1 + numbered + name_size + 1 + value_size + 1;
    if (command < 0 || command > 255 || size > (Py_ssize_t)UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "a command that is no octet, or a packet of more than 4 GiB");
        return NULL;
    }
    PyObject *packet = PyBytes_FromStringAndSize(NULL, 4 + size);
    if (packet == NULL) return NULL;
    octet *out = put_number((octet *)PyBytes_AS_STRING(packet), (uint32_t)size);
    *out++ = (octet)command;
    if (numbered) out = put_number(out, (uint32_t)number);
    memcpy(out, name, (size_t)name_size + 1); /* with the NUL that every bytes object has at its end */
    memcpy(out + name_size + 1, value, (size_t)value_size + 1);
    return packet;
}

/* -- the module --------------------------------------------------------------------------------------------------- */

#define FAST(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, name##_doc}

static PyMethodDef functions[] = {
    {"unsigned_value", unsigned_value, METH_O, unsigned_value_doc},
    {"plain_tags", plain_tags, METH_O, plain_tags_doc},
    {"base64_octets", base64_octets, METH_O, base64_octets_doc},
    {"fields_size", fields_size, METH_O, fields_size_doc},
    FAST(body_piece),
    FAST(edit_packet),
    FAST(line_ends),
    FAST(relaxed_field),
    FAST(signed_data),
    FAST(index_fields),
    FAST(read_packets),
    {NULL, NULL, 0, NULL},
};

static int start(PyObject *Py_UNUSED(module)) {
    fill_base64_values();
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, start}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "authmilter.octets._compiled",
    .m_doc = "The functions of authmilter.octets.python in C.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&definition); }
