/* x * 2 + 1 as a Python function written by hand: every check that a careful extension makes, and nothing else.

       scale_float(x[, out])    scale_double(x[, out])

   The yardstick of what a call from Python can cost. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

static int plain(PyObject *object, int type)
{
    if (!PyArray_CheckExact(object)) return 0;
    PyArrayObject *array = (PyArrayObject *)object;
    return PyArray_TYPE(array) == type && PyArray_NDIM(array) == 1 && PyArray_ISCARRAY_RO(array);
}

#define SCALE(name, type, number)                                                                                     \
    static PyObject *name(PyObject *self, PyObject *const *arguments, Py_ssize_t count)                               \
    {                                                                                                                 \
        if (count < 1 || count > 2 || !plain(arguments[0], number))                                                   \
            return PyErr_Format(PyExc_TypeError, #name ": expected an array and an output");                          \
        PyArrayObject *x = (PyArrayObject *)arguments[0];                                                             \
        npy_intp n = PyArray_DIM(x, 0);                                                                               \
        PyArrayObject *out;                                                                                           \
        if (count == 2) {                                                                                             \
            if (!plain(arguments[1], number) || !PyArray_ISWRITEABLE((PyArrayObject *)arguments[1])                   \
                || PyArray_DIM((PyArrayObject *)arguments[1], 0) != n)                                                \
                return PyErr_Format(PyExc_TypeError, #name ": the output does not fit");                              \
            out = (PyArrayObject *)Py_NewRef(arguments[1]);                                                           \
        } else {                                                                                                      \
            out = (PyArrayObject *)PyArray_SimpleNew(1, &n, number);                                                  \
            if (!out) return NULL;                                                                                    \
        }                                                                                                             \
        const type *from = PyArray_DATA(x);                                                                           \
        type *to = PyArray_DATA(out);                                                                                 \
        for (npy_intp k = 0; k < n; k++) to[k] = from[k] * 2 + 1;                                                     \
        return (PyObject *)out;                                                                                       \
    }

SCALE(scale_float, float, NPY_FLOAT)
SCALE(scale_double, double, NPY_DOUBLE)

static PyMethodDef methods[] = {{"scale_float", (PyCFunction)(void (*)(void))scale_float, METH_FASTCALL, NULL},
                                {"scale_double", (PyCFunction)(void (*)(void))scale_double, METH_FASTCALL, NULL},
                                {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "call_limit", NULL, -1, methods};

PyMODINIT_FUNC PyInit_call_limit(void)
{
    import_array();
    return PyModule_Create(&definition);
}
