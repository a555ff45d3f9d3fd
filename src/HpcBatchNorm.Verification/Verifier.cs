using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>
/// Compares a backend with the reference, case by case, operation by operation, element by element.
/// </summary>
/// <remarks>
/// The backend runs a case's operations in order on its own buffers, as a session would, layouts and padding included. Before each operation the
/// reference is given exactly the values the backend is about to read, so each comparison sees the error of one operation only and its bound can
/// be tight; the first wrong operation is the one reported. Beside the values it checks that inputs are left alone, that what lies around a
/// written slice is left alone, that nothing unwritten is read (all else starts as NaN), and that a second run gives the same bits. Of a case whose inputs
/// are <see cref="InputKind.NotFinite"/> it compares where results are NaN, infinite or numbers, and no values.
/// </remarks>
internal static class Verifier
{
    /// <summary>Runs <paramref name="cases"/> in order on <paramref name="backend"/> and <paramref name="reference"/>.</summary>
    /// <param name="backend">The backend under test.</param>
    /// <param name="reference">The backend that is right.</param>
    /// <param name="cases">What to compare.</param>
    /// <param name="progress">Told of each answer as it comes.</param>
    /// <param name="cancellationToken">Stops between two cases.</param>
    /// <returns>One answer per case. An exception inside a case is an answer too.</returns>
    /// <exception cref="OperationCanceledException">Stopped by the token.</exception>
    public static VerificationReport Run(
        Backend backend, Backend reference, IEnumerable<VerificationCase> cases, Action<CaseResult>? progress = null,
        CancellationToken cancellationToken = default)
    {
        List<CaseResult> results = [];
        foreach (VerificationCase verificationCase in cases)
        {
            cancellationToken.ThrowIfCancellationRequested();
            CaseResult result = Run(backend, reference, verificationCase);
            results.Add(result);
            progress?.Invoke(result);
        }

        return new VerificationReport(backend.Name, (results.Count == 0 ? Precision.Fp32 : results[0].Case.Precision).Word(), results);
    }

    /// <summary>Runs one case.</summary>
    public static CaseResult Run(Backend backend, Backend reference, VerificationCase verificationCase)
    {
        long start = Stopwatch.GetTimestamp();
        List<TensorResult> tensors = [];
        List<string> problems = [];
        try
        {
            using CaseRun run = new(backend, reference, verificationCase, tensors, problems);
            run.Compare();
            run.Repeat();
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            problems.Add($"{e.GetType().Name}: {e.Message}");
        }

        return new CaseResult(verificationCase, backend.Name, tensors, problems, Stopwatch.GetElapsedTime(start));
    }

    /// <summary>One case live on both backends.</summary>
    private sealed class CaseRun : IDisposable
    {
        private readonly VerificationCase _case;
        private readonly CaseRunner _actual;
        private readonly OperationRunner _expected;
        private readonly List<TensorResult> _tensors;
        private readonly List<string> _problems;
        private readonly List<Tensor> _roots;

        // Labels and pixels: never written by an operation, so their fills stay true.
        private readonly Dictionary<Tensor, double[]> _integers = new(ReferenceEqualityComparer.Instance);

        // Every root as the first run left it, for the second run to match.
        private readonly Dictionary<Tensor, double[]> _final = new(ReferenceEqualityComparer.Instance);

        public CaseRun(Backend backend, Backend reference, VerificationCase verificationCase, List<TensorResult> tensors, List<string> problems)
        {
            (_case, _tensors, _problems) = (verificationCase, tensors, problems);
            HashSet<Tensor> roots = new(ReferenceEqualityComparer.Instance);
            _roots = [.. verificationCase.Operations.SelectMany(Touched).Select(t => t.Root).Where(t => HasValues(t) && roots.Add(t))];
            _actual = CaseRunner.Create(backend, verificationCase);
            try
            {
                _expected = new OperationRunner(reference, verificationCase.Precision, verificationCase.Operations);
            }
            catch
            {
                _actual.Dispose();
                throw;
            }
        }

        public void Compare()
        {
            WriteInputs(_actual.Write, _actual.Write, _actual.Write);
            WriteInputs(_expected.Write, _expected.Write, _expected.Write);
            for (int k = 0; k < _case.Operations.Count; k++)
            {
                CompareOperation(_case.Operations[k], k, _expected.Kernels[k]);
            }

            foreach (Tensor root in _roots.Where(IsFloat))
            {
                _final[root] = _actual.ReadDouble(root);
            }
        }

        public void Repeat()
        {
            WriteInputs(_actual.Write, _actual.Write, _actual.Write);
            for (int k = 0; k < _case.Operations.Count; k++)
            {
                _ = ReadInputs([.. _case.Operations[k].Reads.Where(HasValues)]);
                _actual.Execute(k, _case.Context);
            }

            foreach ((Tensor root, double[] first) in _final)
            {
                int index = FirstDifference(first, _actual.ReadDouble(root));
                if (index >= 0)
                {
                    _problems.Add($"a second run gives other bits in {root.Name}, first at element {index}");
                }
            }

            _problems.AddRange(_actual.Problems.Distinct());
        }

        public void Dispose()
        {
            _actual.Dispose();
            _expected.Dispose();
        }

        private static IEnumerable<Tensor> Touched(Operation operation) => operation.Reads.Concat(operation.Writes);

        /// <summary>False for workspaces, whose contents belong to the backend.</summary>
        private static bool HasValues(Tensor tensor) => tensor.Role != TensorRole.Workspace;

        private static bool IsFloat(Tensor tensor) => tensor.DataType.IsFloat();

        private delegate void Writes<T>(Tensor tensor, ReadOnlySpan<T> values);

        private void WriteInputs(Writes<double> numbers, Writes<int> classes, Writes<byte> pixels)
        {
            foreach (Tensor root in _roots)
            {
                if (!_integers.TryGetValue(root, out double[]? values))
                {
                    values = _case.InputValues(root);
                }

                switch (root.DataType)
                {
                    case DataType.Int32:
                        classes(root, Array.ConvertAll(values, v => (int)v));
                        _integers[root] = values;
                        break;
                    case DataType.UInt8:
                        pixels(root, Array.ConvertAll(values, v => (byte)v));
                        _integers[root] = values;
                        break;
                    default:
                        numbers(root, values);
                        break;
                }
            }
        }

        private void CompareOperation(Operation operation, int place, Kernel expected)
        {
            Tensor[] reads = [.. operation.Reads.Where(HasValues)], writes = [.. operation.Writes.Where(HasValues)];
            OperationValues values = new(_case.Kind, _case.Context, ReadInputs(reads));

            // Whole roots before execution: what the operation must leave alone.
            Dictionary<Tensor, double[]> before = new(ReferenceEqualityComparer.Instance);
            foreach (Tensor root in reads.Concat(writes).Select(t => t.Root).Where(IsFloat))
            {
                before[root] = _actual.ReadDouble(root);
            }

            _actual.Execute(place, _case.Context);
            string implementation = _actual.Implementation(place);

            bool notFinite = _case.Kind == InputKind.NotFinite;
            if (!notFinite && ErrorModel.IsLinear(operation))
            {
                ExecuteReference(expected, values, reads, absolute: true);
                ReadAll(_expected.ReadDouble, writes, values.Magnitudes);
            }

            ExecuteReference(expected, values, reads, absolute: false);
            ReadAll(_expected.ReadDouble, writes, values.Expected);
            ReadAll(_actual.ReadDouble, writes, values.Actual);

            string name = $"{operation.Kind} '{operation.Name}'";
            HashSet<Tensor> unbounded = new(writes, ReferenceEqualityComparer.Instance);
            if (notFinite)
            {
                unbounded.Clear();
                bool spreads = Tolerances.ArithmeticOf(operation.Kind, implementation) is Arithmetic.Winograd or Arithmetic.NativeWinograd;
                _tensors.AddRange(writes.Select(t => TensorResult.CompareKinds(name, t, implementation, values.Actual[t], values.Expected[t], spreads)));
            }

            foreach (OutputBound output in notFinite ? [] : ErrorModel.Bounds(operation, values, implementation))
            {
                unbounded.Remove(output.Tensor);
                _tensors.Add(TensorResult.Compare(
                    name, output.Role, output.Tensor, implementation, values.Actual[output.Tensor], values.Expected[output.Tensor], output.Bound));
            }

            _problems.AddRange(unbounded.Select(t => $"{name} writes {t.Name}, for which the verification has no bound"));
            foreach ((Tensor root, double[] old) in before)
            {
                CheckUntouched(name, root, old, [.. writes.Where(t => t.Root == root)]);
            }
        }

        /// <summary>
        /// What the backend under test is about to read. A backend that keeps more digits than the tensor's type, or than single precision (the
        /// reference, under test itself), loses them here, so that both sides read the same.
        /// </summary>
        private Dictionary<Tensor, double[]> ReadInputs(Tensor[] reads)
        {
            Dictionary<Tensor, double[]> inputs = new(ReferenceEqualityComparer.Instance);
            foreach (Tensor tensor in reads)
            {
                double[] values = IsFloat(tensor) ? _actual.ReadDouble(tensor) : _integers[tensor.Root];
                DataType type = tensor.DataType.IsNarrow() ? tensor.DataType : DataType.Float32;
                if (Array.Exists(values, v => v != type.Round(v) && !double.IsNaN(v)))
                {
                    values = Array.ConvertAll(values, v => type.Round(v));
                    _actual.Write(tensor, (ReadOnlySpan<double>)values);
                }

                inputs[tensor] = values;
            }

            return inputs;
        }

        private void ExecuteReference(Kernel kernel, OperationValues values, Tensor[] reads, bool absolute)
        {
            IReadOnlyDictionary<Tensor, double[]> magnitudes = absolute ? ErrorModel.MagnitudesInPlace(kernel.Operation, values) : new Dictionary<Tensor, double[]>();
            foreach (Tensor tensor in reads.Where(IsFloat))
            {
                double[] input = values.Inputs[tensor];
                _expected.Write(tensor, (ReadOnlySpan<double>)(!absolute ? input : magnitudes.GetValueOrDefault(tensor) ?? Array.ConvertAll(input, Math.Abs)));
            }

            kernel.Execute(_case.Context);
        }

        private static void ReadAll(Func<Tensor, double[]> read, Tensor[] tensors, Dictionary<Tensor, double[]> values)
        {
            foreach (Tensor tensor in tensors)
            {
                values[tensor] = read(tensor);
            }
        }

        /// <summary>Every element of a root outside the views an operation writes must keep its bits.</summary>
        private void CheckUntouched(string operation, Tensor root, double[] before, Tensor[] written)
        {
            Shape shape = root.Shape;
            bool[] writable = new bool[shape.C];
            foreach (Tensor tensor in written)
            {
                writable.AsSpan(tensor.RootChannelOffset, tensor.Shape.C).Fill(true);
            }

            if (writable.All(w => w))
            {
                return;
            }

            double[] after = _actual.ReadDouble(root);
            for (int i = 0; i < after.Length; i++)
            {
                if (!writable[i / shape.Area % shape.C] && !SameBits(before[i], after[i]))
                {
                    _problems.Add($"{operation} changed {root.Name} where it has nothing to write: channel {i / shape.Area % shape.C} of image {i / shape.ImageCount}");
                    return;
                }
            }
        }

        private static int FirstDifference(double[] a, double[] b)
        {
            for (int i = 0; i < a.Length; i++)
            {
                if (!SameBits(a[i], b[i]))
                {
                    return i;
                }
            }

            return -1;
        }

        // NaN equals NaN here whatever its payload: converting single to double may quieten it.
        private static bool SameBits(double a, double b) =>
            BitConverter.DoubleToInt64Bits(a) == BitConverter.DoubleToInt64Bits(b) || (double.IsNaN(a) && double.IsNaN(b));
    }
}
