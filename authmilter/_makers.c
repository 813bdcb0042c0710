/* Makers of frozen dataclasses: what authmilter/makers.py describes, in C.
 *
 * A frozen dataclass sets each of its fields through object.__setattr__, behind a dictionary of keyword arguments; a maker
 * puts the values where the class's slots are. Optional, as octets/_compiled.c is.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyTypeObject *type;
    PyObject *names;    /* tuple of interned str: the fields in order */
    PyObject *defaults; /* dict: field -> default */
    Py_ssize_t *offsets;
} Maker;

static PyObject *wrong(Maker *self, const char *what, PyObject *name) {
    PyErr_Format(PyExc_TypeError, "%.200s: %s %R", self->type->tp_name, what, name);
    return NULL;
}

/* Return the place of a field, from `guess` on; -1 if there is none of that name. */
static Py_ssize_t place_of(Maker *self, PyObject *name, Py_ssize_t guess) {
    const Py_ssize_t count = PyTuple_GET_SIZE(self->names);
    /* names in code are interned, and mostly stand in the order of the fields */
    for (Py_ssize_t i = guess; i < count; i++)
        if (PyTuple_GET_ITEM(self->names, i) == name) return i;
    for (Py_ssize_t i = 0; i < guess && i < count; i++)
        if (PyTuple_GET_ITEM(self->names, i) == name) return i;
    for (Py_ssize_t i = 0; i < count; i++)
        if (PyUnicode_Compare(PyTuple_GET_ITEM(self->names, i), name) == 0) return i;
    return -1;
}

static PyObject *make(PyObject *callable, PyObject *const *args, size_t flagged, PyObject *keywords) {
    Maker *self = (Maker *)callable;
    const Py_ssize_t given = PyVectorcall_NARGS(flagged);
    const Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    const Py_ssize_t count = PyTuple_GET_SIZE(self->names);
    if (given > count) {
        PyErr_Format(PyExc_TypeError, "%.200s has %zd fields, not %zd", self->type->tp_name, count, given);
        return NULL;
    }
    PyObject *value = self->type->tp_alloc(self->type, 0);
    if (value == NULL) return NULL;
#define SLOT(i) (*(PyObject **)((char *)value + self->offsets[i]))
    for (Py_ssize_t i = 0; i < given; i++) SLOT(i) = Py_NewRef(args[i]);
    Py_ssize_t guess = given;
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(keywords, i);
        const Py_ssize_t at = place_of(self, name, guess);
        if (at < 0 || SLOT(at) != NULL) {
            Py_DECREF(value);
            return wrong(self, at < 0 ? "there is no field" : "two values for", name);
        }
        SLOT(at) = Py_NewRef(args[given + i]);
        guess = at + 1;
    }
    if (given + named < count) {
        for (Py_ssize_t i = 0; i < count; i++) {
            if (SLOT(i) != NULL) continue;
            PyObject *name = PyTuple_GET_ITEM(self->names, i);
            PyObject *other = PyDict_GetItemWithError(self->defaults, name);
            if (other == NULL) {
                Py_DECREF(value);
                return PyErr_Occurred() ? NULL : wrong(self, "no value for", name);
            }
            SLOT(i) = Py_NewRef(other);
        }
    }
#undef SLOT
    return value;
}

static int clear(PyObject *object) {
    Maker *self = (Maker *)object;
    Py_CLEAR(self->type);
    Py_CLEAR(self->names);
    Py_CLEAR(self->defaults);
    return 0;
}

static int traverse(PyObject *object, visitproc visit, void *arg) {
    Maker *self = (Maker *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->type);
    Py_VISIT(self->names);
    Py_VISIT(self->defaults);
    return 0;
}

static void dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear(object);
    PyMem_Free(((Maker *)object)->offsets);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *new_maker(PyTypeObject *kind, PyObject *args, PyObject *keywords) {
    PyTypeObject *type;
    PyObject *names, *defaults;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Maker(type, names, defaults)");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!O!O!", &PyType_Type, &type, &PyTuple_Type, &names, &PyDict_Type, &defaults)) return NULL;
    Maker *self = (Maker *)kind->tp_alloc(kind, 0);
    if (self == NULL) return NULL;
    self->call = make;
    self->type = (PyTypeObject *)Py_NewRef(type);
    self->names = Py_NewRef(names);
    self->defaults = PyDict_Copy(defaults);
    self->offsets = PyMem_Calloc((size_t)PyTuple_GET_SIZE(names) + 1, sizeof(Py_ssize_t));
    if (self->defaults == NULL || self->offsets == NULL) {
        Py_DECREF(self);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject *slot = PyUnicode_CheckExact(name) ? PyDict_GetItemWithError(type->tp_dict, name) : NULL;
        /* the class's own slot, which holds an object or nothing */
        if (slot == NULL || !Py_IS_TYPE(slot, &PyMemberDescr_Type) || PyDescr_TYPE(slot) != type ||
            ((PyMemberDescrObject *)slot)->d_member->type != T_OBJECT_EX) {
            if (!PyErr_Occurred()) PyErr_Format(PyExc_TypeError, "%.200s has no slot %R of its own", type->tp_name, name);
            Py_DECREF(self);
            return NULL;
        }
        self->offsets[i] = ((PyMemberDescrObject *)slot)->d_member->offset;
    }
    return (PyObject *)self;
}

static PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Maker, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot maker_slots[] = {
    {Py_tp_doc, "Maker(type, names, defaults)\n--\n\nSee authmilter.makers.maker."},
    {Py_tp_new, new_maker},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, members},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec maker_spec = {
    .name = "authmilter._makers.Maker",
    .basicsize = sizeof(Maker),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = maker_slots,
};

static int start(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &maker_spec, NULL);
    if (type == NULL) return -1;
    const int failed = PyModule_AddObjectRef(module, "Maker", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, start}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "authmilter._makers",
    .m_doc = "Makers of frozen dataclasses, in C.",
    .m_size = 0,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__makers(void) { return PyModuleDef_Init(&definition); }
