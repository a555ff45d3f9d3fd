using System.Collections.Concurrent;
using System.Diagnostics;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Training.Serving;

/// <summary>
/// A thread with a session: takes waiting requests, a pass at a time. A thread of its own, because OpenMP keeps a team of threads for every thread that
/// computes, which those of the thread pool would multiply.
/// </summary>
internal sealed class ClassifierWorker
{
    private readonly ForwardSession _session;
    private readonly BlockingCollection<ClassificationRequest> _queue;
    private readonly ClassifierOptions _options;
    private readonly IReadOnlyList<string> _names;
    private readonly Action _taken;
    private readonly byte[] _pixels;
    private readonly float[] _probabilities;
    private readonly List<ClassificationRequest> _batch = [];
    private readonly Thread _thread;

    /// <param name="session">Belongs to the worker from now on.</param>
    /// <param name="queue">Where requests come from; the worker ends when it is complete and empty.</param>
    /// <param name="options">Batch and delay.</param>
    /// <param name="names">The classes.</param>
    /// <param name="taken">Called for every request that leaves the queue.</param>
    /// <param name="number">For the thread's name.</param>
    public ClassifierWorker(
        ForwardSession session, BlockingCollection<ClassificationRequest> queue, ClassifierOptions options, IReadOnlyList<string> names, Action taken, int number)
    {
        (_session, _queue, _options, _names, _taken) = (session, queue, options, names, taken);
        _pixels = new byte[session.Plan.Pixels.Shape.Count];
        _probabilities = new float[session.Plan.Probabilities.Shape.Count];
        _thread = new Thread(Work) { IsBackground = true, Name = FormattableString.Invariant($"hpcbn classifier {number}") };
    }

    public void Start() => _thread.Start();

    /// <summary>Waits until the queue is empty and the last pass is done, and frees the session. For a queue that is complete.</summary>
    public void Finish()
    {
        if (_thread.ThreadState.HasFlag(System.Threading.ThreadState.Unstarted))
        {
            _session.Dispose();
            return;
        }

        _thread.Join();
    }

    private void Work()
    {
        try
        {
            while (Collect())
            {
                Compute();
            }
        }
        finally
        {
            _session.Dispose();
        }
    }

    /// <summary>Waits for requests; false at the end.</summary>
    private bool Collect()
    {
        _batch.Clear();
        if (!_queue.TryTake(out ClassificationRequest? request, Timeout.Infinite))
        {
            return false;
        }

        Accept(request);
        long first = Stopwatch.GetTimestamp();
        while (_batch.Count < _options.MaxBatch)
        {
            double wait = (_options.BatchingDelay - Stopwatch.GetElapsedTime(first)).TotalMilliseconds;
            if (!_queue.TryTake(out request, (int)Math.Ceiling(Math.Max(0, wait))))
            {
                break;
            }

            Accept(request);
        }

        return true;
    }

    private void Accept(ClassificationRequest request)
    {
        _taken();
        if (request.IsCancelled)
        {
            request.Cancel();
        }
        else
        {
            request.Pixels.CopyTo(_pixels.AsSpan(_batch.Count * request.Pixels.Length));
            _batch.Add(request);
        }

        request.Release();
    }

    /// <summary>The whole batch is computed, however many requests are in it; the rest holds what was there before.</summary>
    private void Compute()
    {
        if (_batch.Count == 0)
        {
            return;
        }

        try
        {
            long start = Stopwatch.GetTimestamp();
            _session.Forward(_pixels, _probabilities);
            Instruments.Computed(_batch.Count, Stopwatch.GetElapsedTime(start).TotalSeconds);
            int classes = _probabilities.Length / _options.MaxBatch;
            for (int i = 0; i < _batch.Count; i++)
            {
                _batch[i].Complete(new Classification(_probabilities.AsSpan(i * classes, classes).ToArray(), _names, _options.TopClasses));
            }
        }
#pragma warning disable CA1031 // Whatever it is, it belongs to the requests; the next ones may fare better.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _batch.ForEach(request => request.Fail(error));
        }
    }
}
