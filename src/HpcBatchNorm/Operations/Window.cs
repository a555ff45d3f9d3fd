using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>The arithmetic of a sliding window along one axis, shared by convolution and pooling.</summary>
internal static class Window
{
    /// <summary>Number of window positions: floor((extent + padBefore + padAfter - span) / stride) + 1.</summary>
    public static int Outputs(int extent, int kernel, int stride, int padBefore, int padAfter, int dilation = 1)
    {
        // Files may say any number; Validate names those that cannot be.
        long room = (long)extent + padBefore + padAfter - ((kernel - 1L) * dilation + 1);
        return room < 0 || stride < 1 ? 0 : (int)Math.Min(room / stride + 1, int.MaxValue);
    }

    /// <summary>
    /// The trailing padding that makes <see cref="Outputs"/> round up instead of down (Caffe's ceil mode):
    /// the last window may hang over the end but must start inside the input or its leading padding.
    /// </summary>
    public static int CeilPadAfter(int extent, int kernel, int stride, int padBefore, int padAfter)
    {
        if (stride < 1)
        {
            return padAfter; // Validate says so
        }

        long outputs = ((long)extent + padBefore + padAfter - kernel + stride - 1) / stride + 1;
        if ((outputs - 1) * stride >= (long)extent + padBefore)
        {
            outputs--;
        }

        return (int)Math.Clamp((outputs - 1) * stride + kernel - extent - padBefore, 0, int.MaxValue);
    }

    public static void Validate(string name, string axis, int extent, int kernel, int stride, int padBefore, int padAfter, int dilation = 1)
    {
        SpecCheck.Positive(name, $"kernel {axis}", kernel);
        SpecCheck.Positive(name, $"stride ({axis})", stride);
        SpecCheck.Positive(name, $"dilation ({axis})", dilation);
        if (padBefore < 0 || padAfter < 0)
        {
            throw new ArgumentException($"'{name}': padding of {axis} is {padBefore} and {padAfter}; it must not be negative.");
        }

        if (Outputs(extent, kernel, stride, padBefore, padAfter, dilation) < 1)
        {
            throw new ArgumentException(
                $"'{name}': a window of {(kernel - 1L) * dilation + 1} {axis} does not fit an input of {extent} with padding {padBefore} + {padAfter}. Use a larger image.");
        }
    }
}

internal static class SpecCheck
{
    public static void Shape(string name, Shape shape)
    {
        if (!shape.IsValid)
        {
            throw new ArgumentException($"'{name}': the shape {shape} must have extents of at least 1.");
        }

        // Elements of an image are counted in 32 bits, those of all images in 64.
        if ((double)shape.C * shape.H * shape.W > int.MaxValue)
        {
            throw new ArgumentException($"'{name}': the shape {shape} has more than 2^31 elements in one image. Make it smaller.");
        }
    }

    public static void Positive(string name, string what, int value)
    {
        if (value < 1)
        {
            throw new ArgumentException($"'{name}': {what} is {value}; it must be at least 1.");
        }
    }
}
