using System.Globalization;
using System.Text;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Sessions;

/// <summary>The first value of a forward pass that is infinite or not a number, and what went into the layer that computed it.</summary>
/// <param name="Layer">The layer's name, e.g. <c>inception_3a/3x3/conv</c>.</param>
/// <param name="Operation">What it did, e.g. <c>convolution forward</c>.</param>
/// <param name="Tensor">The output: its value or a batch statistic.</param>
/// <param name="Count">How many of its values are not finite.</param>
/// <param name="BrokenParameter">A parameter of the layer that was not finite before; null when all were: then the layer itself overflowed.</param>
/// <param name="Magnitudes">What the layer read, with its largest magnitude.</param>
public sealed record NotFiniteOutput(
    string Layer, string Operation, Tensor Tensor, long Count, string? BrokenParameter, IReadOnlyList<(string Name, float Largest)> Magnitudes)
{
    /// <summary>One sentence for people.</summary>
    public override string ToString()
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture,
            $"The first layer whose output is not finite is {Layer} ({Operation}): {Count} of {Tensor.Shape.Count} values of '{Tensor.Name}'.");
        if (BrokenParameter is not null)
        {
            return text.Append(CultureInfo.InvariantCulture, $" Its parameter '{BrokenParameter}' was not finite before: an earlier update broke it.").ToString();
        }

        return Magnitudes.Count == 0 ? text.ToString() : text
            .Append(" It read values up to ")
            .AppendJoin(", ", Magnitudes.Select(m => string.Create(CultureInfo.InvariantCulture, $"{m.Largest:0.##e+0} ('{m.Name}')")))
            .Append('.').ToString();
    }

    /// <summary>
    /// Executes operations one by one; each output is read before its memory can be used again. Where operations wait for other ranks all are executed, since those may
    /// find something later, or nothing.
    /// </summary>
    internal static NotFiniteOutput? Find(Session session, int operations, in StepContext context)
    {
        float[] values = [];
        bool toTheEnd = session.Plan.Operations.Take(operations).Any(o => o is BatchNormForward { Synchronized: true });
        NotFiniteOutput? found = null;
        for (int i = 0; i < operations && (found is null || toTheEnd); i++)
        {
            if (found is not null)
            {
                session.ExecuteOperation(i, context);
                continue;
            }

            // What it reads is looked at first: an operation may write over it.
            Operation operation = session.Plan.Operations[i];
            List<(string Name, float Largest)> read = [];
            string? broken = null;
            foreach (Tensor tensor in operation.Reads.Where(t => t.Role is TensorRole.Parameter or TensorRole.Activation))
            {
                float largest = Largest(Read(session, tensor, ref values));
                read.Add((tensor.Name, largest));
                broken ??= tensor.Role == TensorRole.Parameter && !float.IsFinite(largest) ? tensor.Name : null;
            }

            session.ExecuteOperation(i, context);
            foreach (Tensor tensor in operation.Writes.Where(t => t.Role is TensorRole.Activation or TensorRole.BatchStatistic or TensorRole.Result))
            {
                ReadOnlySpan<float> output = Read(session, tensor, ref values);
                long count = CountNotFinite(output);
                if (count > 0)
                {
                    found = new NotFiniteOutput(operation.Name, operation.Kind, tensor, count, broken, read);
                    break;
                }
            }
        }

        return found;
    }

    private static ReadOnlySpan<float> Read(Session session, Tensor tensor, ref float[] values)
    {
        int count = checked((int)tensor.Shape.Count);
        if (values.Length < count)
        {
            values = new float[count];
        }

        session.Read(tensor, values.AsSpan(0, count));
        return values.AsSpan(0, count);
    }

    private static long CountNotFinite(ReadOnlySpan<float> values)
    {
        long count = 0;
        foreach (float value in values)
        {
            count += float.IsFinite(value) ? 0 : 1;
        }

        return count;
    }

    /// <summary>The largest magnitude; infinite or NaN when a value is.</summary>
    private static float Largest(ReadOnlySpan<float> values) => values.IsEmpty ? 0 : Math.Abs(System.Numerics.Tensors.TensorPrimitives.MaxMagnitude(values));
}
