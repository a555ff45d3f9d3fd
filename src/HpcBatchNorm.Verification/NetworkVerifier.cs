using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>
/// Compares whole training steps. One plan, made for the backend under test, runs on both backends: every buffer every operation writes is compared
/// element by element, within bounds derived from its own sums; the planned memory is compared with memory that is never reused; and two free-running trainings must agree in their losses.
/// </summary>
public static class NetworkVerifier
{
    /// <summary>One step of a plan as a case: pixels and labels at random, parameters as initialised, momenta small and random.</summary>
    /// <param name="plan">A training or inference plan; folded weights are taken as initialised too.</param>
    /// <param name="options">What selects it on the command line, e.g. <c>--network inception-tiny</c>.</param>
    public static VerificationCase StepCase(Plan plan, string options)
    {
        ulong seed = (plan.Options as TrainingOptions)?.Seed ?? 1;
        Dictionary<Tensor, TensorFill> inputs = new(ReferenceEqualityComparer.Instance) { [plan.Pixels] = Fills.Integers(0, 255) };
        if (plan.Labels is not null)
        {
            inputs[plan.Labels] = Fills.Integers(0, plan.Probabilities.Shape.C - 1);
        }

        if (plan.LossScale is not null)
        {
            float scale = ((TrainingOptions)plan.Options).LossScale;
            inputs[plan.LossScale] = (_, _, values) => (values[0], values[1], values[2], values[3]) = (scale, 0, 0, 0);
        }

        foreach (IGrouping<Tensor, StateTensor> entries in plan.State.GroupBy(s => s.Tensor.Root))
        {
            inputs[entries.Key] = entries.Key.Role == TensorRole.SecondMoment ? Fills.Uniform(0, 1e-6) : entries.Key.Role == TensorRole.Momentum ? Fills.Uniform(-1e-3, 1e-3) : (_, _, values) =>
            {
                // In the order of their rows, where several layers' parameters lie together.
                int start = 0;
                foreach (StateTensor entry in entries)
                {
                    float[] initial = new float[entry.Tensor.Shape.Count];
                    entry.Source.Spec.Initializer.Fill(entry.Tensor.Shape, initial, seed, entry.Source.Name);
                    foreach (float value in initial)
                    {
                        values[start++] = value;
                    }
                }
            };
        }

        return new VerificationCase(plan.Labels is null ? "inference" : "training-step", InputKind.Random, plan.Operations, inputs)
        {
            Options = options,
            Context = new StepContext(0, 0.05f),
            Precision = plan.Options.Precision,
            Seed = 1,
        };
    }

    /// <summary>
    /// Compares every buffer of one step; of a training step (<see cref="TrainingOptions"/>) also the planned memory with memory of its own for every tensor.
    /// </summary>
    public static CaseResult Step(Backend backend, Backend reference, Network network, PlanOptions session, string options)
    {
        Plan plan = session is TrainingOptions training
            ? TrainingSession.PlanFor(backend.Traits, network, training)
            : ForwardSession.PlanFor(backend.Traits, network, (InferenceOptions)session);
        VerificationCase step = StepCase(plan, options);
        CaseResult result = Verifier.Run(backend, reference, step);
        return plan.Labels is null ? result : result with { Problems = [.. result.Problems, .. MemoryReuse(backend, plan, step)] };
    }

    /// <summary>
    /// Trains <paramref name="steps"/> steps on both backends from the same start, on a batch each step, and compares the losses. How far rounding alone
    /// may take them apart is a property of the network: the reference, started from parameters moved by as much as a layer rounds, shows it.
    /// For small networks and few steps.
    /// </summary>
    public static CaseResult Replay(
        Backend backend, Backend reference, Network network, TrainingOptions training, string options, int steps = 10, float learningRate = 0.01f)
    {
        long start = Stopwatch.GetTimestamp();
        Plan plan = TrainingSession.PlanFor(backend.Traits, network, training);
        VerificationCase replay = StepCase(plan, options) with { Name = "loss-replay" };
        double[] actual = Losses(backend, plan, replay, steps, learningRate), expected = Losses(reference, plan, replay, steps, learningRate);
        int paths = Tolerances.LossReplayPaths(plan.Options.Precision);
        double[][] moved = [.. Enumerable.Range(1, paths).Select(path => Losses(reference, plan, replay, steps, learningRate, path))];
        double[] bound = new double[steps];
        double drift = 0;
        for (int i = 0; i < steps; i++)
        {
            drift = Math.Max(drift, moved.Select(path => Math.Abs(path[i] - expected[i]) / Math.Abs(expected[i])).DefaultIfEmpty().Max());
            bound[i] = Tolerances.LossReplay(plan.Options.Precision, drift) * Math.Abs(expected[i]);
        }

        Tensor losses = new("loss", new Shape(steps, 1, 1, 1), TensorRole.Result);
        TensorResult result = TensorResult.Compare($"{steps} training steps", "loss", losses, backend.Description, actual, expected, bound);
        return new CaseResult(replay, backend.Name, [result], [], Stopwatch.GetElapsedTime(start));
    }

    /// <summary>The loss of each step. A path other than 0 starts from parameters moved up or down at random, each path in its own way.</summary>
    private static double[] Losses(Backend backend, Plan plan, VerificationCase replay, int steps, float learningRate, int path = 0)
    {
        using TrainingSession session = new(backend, plan);
        Random random = new(path);
        foreach (StateTensor entry in plan.State.Where(s => path != 0 && s.Tensor.Role == TensorRole.Parameter))
        {
            float[] values = new float[entry.Tensor.Shape.Count];
            session.Read(entry.Tensor, values);
            session.Write(entry.Tensor, Array.ConvertAll(values, v => v * (1 + (random.Next(2) == 0 ? Tolerances.LossReplayMove : -Tolerances.LossReplayMove))));
        }

        double[] losses = new double[steps];
        for (int i = 0; i < steps; i++)
        {
            VerificationCase batch = replay with { Seed = (ulong)i };
            byte[] pixels = Array.ConvertAll(batch.InputValues(plan.Pixels), v => (byte)v);
            int[] labels = Array.ConvertAll(batch.InputValues(plan.Labels!), v => (int)v);
            losses[i] = session.Step(pixels, labels, new StepContext(i, learningRate));
        }

        return losses;
    }

    /// <summary>A step in the session's arena must leave the same bits in everything persistent as a step where no memory is reused.</summary>
    private static List<string> MemoryReuse(Backend backend, Plan plan, VerificationCase step)
    {
        List<string> problems = [];
        try
        {
            using TrainingSession session = new(backend, plan);
            using OperationRunner alone = new(backend, plan.Options.Precision, plan.Operations);
            byte[] pixels = Array.ConvertAll(step.InputValues(plan.Pixels), v => (byte)v);
            int[] labels = Array.ConvertAll(step.InputValues(plan.Labels!), v => (int)v);
            alone.Write(plan.Pixels, (ReadOnlySpan<byte>)pixels);
            alone.Write(plan.Labels!, (ReadOnlySpan<int>)labels);
            foreach (Tensor tensor in plan.State.Select(s => s.Tensor.Root).Distinct())
            {
                double[] values = step.InputValues(tensor);
                session.Write(tensor, (ReadOnlySpan<double>)values);
                alone.Write(tensor, (ReadOnlySpan<double>)values);
            }

            if (plan.LossScale is not null)
            {
                alone.Write(plan.LossScale, (ReadOnlySpan<double>)step.InputValues(plan.LossScale));
            }

            session.Step(pixels, labels, step.Context);
            alone.Execute(step.Context);
            foreach (Tensor tensor in plan.State.Select(s => s.Tensor.Root).Distinct())
            {
                float[] reused = new float[tensor.Shape.Count], own = new float[tensor.Shape.Count];
                session.Read(tensor, (Span<float>)reused);
                alone.Read(tensor, own);
                if (!reused.AsSpan().SequenceEqual(own))
                {
                    problems.Add($"the session's planned memory gives other bits in {tensor.Name} than memory that is never reused: a lifetime is wrong");
                }
            }
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            problems.Add($"{e.GetType().Name}: {e.Message}");
        }

        return problems;
    }
}
