"""convlab on array-api-strict, an array library that has nothing but the array API standard."""

from convlab.contract.adapter import Adapter, is_instance

adapter = Adapter(
    name="strict",
    package="convlab_strict",
    frameworks=("array_api_strict",),
    is_native=lambda x: is_instance(x, "array_api_strict._array_object", "Array"),
    minimum="2.0",
    dtypes=("float32", "float64"),
    autograd=False,
    second_derivatives=False,
    install=("array-api-strict",),
)
